"""Logits and losses of real heads' sizes: exact in float32 though weights and states are of half types."""

from __future__ import annotations

import pytest
import torch

from lmsat_plugin.model import cross_entropy
from lmsat_plugin.model.cross_entropy import token_losses
from lmsat_plugin.model.lm_head import Head
from lmsat_plugin.model.spectrum import decompose, triangle

PARTS = [{}, {"softcap": 30.0, "scale": 0.25}, {"bias": True}]


@pytest.fixture(params=[(576, 50_304), (4096, 50_304), (576, 262_144)], ids=str)
def sizes(request, on_gpu) -> tuple[int, int]:
    return request.param if on_gpu else tuple(number // 16 for number in request.param)


def head_of(sizes, dtype, device, bias: bool = False, **parts) -> tuple[Head, torch.Tensor, torch.Tensor]:
    width, rows = sizes
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    head = Head(
        weight_VD=(normal(rows, width) / width**0.5 * 3).to(dtype), bias_V=normal(rows) if bias else None, **parts
    )
    targets_N = torch.randint(rows, (300,), generator=generator, device=device)
    return head, normal(300, width).to(dtype), targets_N


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_logits_and_losses_of_half_types(sizes, dtype, parts, device):
    """Against a product in float64 of the same numbers."""
    head, states_ND, targets_N = head_of(sizes, dtype, device, **parts)
    reduced = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    expected_NV = head.finish(states_ND.double() @ head.weight_VD.double().T)
    found_NV = head.logits(head.prepare(states_ND))
    assert found_NV.dtype == torch.float32
    assert float((found_NV - expected_NV).abs().max()) <= 1e-5 * float(expected_NV.abs().max())
    losses_N = token_losses(states_ND, targets_N, head)
    expected_N = torch.nn.functional.cross_entropy(expected_NV, targets_N, reduction="none")
    assert float((losses_N - expected_N).abs().max()) <= 2e-5
    assert float((losses_N - expected_N).mean().abs()) <= 1e-6
    assert torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction == reduced


def test_older_pytorch_multiplies_in_float32(device, monkeypatch):
    """Below 2.8 PyTorch has no product of halves that comes out in float32."""
    monkeypatch.setattr("lmsat_plugin.model.lm_head._adds_halves_in_float32", lambda: False)
    head, states_ND, _ = head_of((576, 3000), torch.bfloat16, device)
    expected_NV = states_ND.double() @ head.weight_VD.double().T
    found_NV = head.logits(head.prepare(states_ND))
    assert float((found_NV - expected_NV).abs().max()) <= 1e-5 * float(expected_NV.abs().max())


def test_tiles_of_any_shape_give_the_same_losses(device, monkeypatch):
    head, states_ND, targets_N = head_of((576, 20_000), torch.bfloat16, device)
    found = []
    for tile in ((8192, 8192), (100, 4096), (64, 333)):
        for name in ("_CPU_TILE", "_GPU_TILE"):
            monkeypatch.setattr(cross_entropy, name, tile)
        found.append(token_losses(states_ND, targets_N, head))
    for losses_N in found[1:]:
        torch.testing.assert_close(losses_N, found[0], rtol=1e-5, atol=1e-5)


def test_decompositions_are_those_of_the_cpu(device, on_gpu):
    width = 2048 if on_gpu else 96
    generator = torch.Generator().manual_seed(0)
    weight_VD = torch.randn(3 * width, width, generator=generator) * torch.logspace(0, -6, width)
    triangle_KD = triangle(weight_VD.to(device))
    singular_K, vectors_DD = decompose(triangle_KD)
    assert singular_K.device.type == vectors_DD.device.type == device.type
    expected_K = torch.linalg.svdvals(weight_VD.double())
    assert float((singular_K.cpu() - expected_K).abs().max()) <= 1e-10 * float(expected_K[0])
    again_KD = (triangle_KD @ vectors_DD.T).cpu()
    torch.testing.assert_close(again_KD.norm(dim=0), singular_K.cpu(), rtol=1e-8, atol=1e-10 * float(expected_K[0]))
