"""Gradients of sequences: sketches keep their products, and the model is left as it was."""

from __future__ import annotations

import math

import pytest
import torch
from gradient_noise_runs import run
from tiny_models import make_model

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.probes.gradient_noise import gradients
from lmsat_plugin.probes.gradient_noise.gradients import GradientSum, differentiable


def test_sketches_keep_products(monkeypatch):
    """Of gradients that are the same in all but noise, and repeat themselves along rows as matrices' do."""
    monkeypatch.setattr(gradients, "SKETCH", 521)
    monkeypatch.setattr(gradients, "_PIECE", 16 * 521)
    parameter = torch.nn.Parameter(torch.zeros(300, 256))
    sums = GradientSum([parameter], torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(300, 1, generator=generator) * torch.randn(1, 256, generator=generator)
    rows = [common + 2 * torch.randn(300, 256, generator=generator) for _ in range(6)]
    found = [sums.add((parameter * row).sum()) for row in rows]
    sketches, flat = torch.stack([sketch for _, sketch in found]), torch.stack(rows).flatten(1).double()
    products, norms = flat @ flat.T, flat.norm(dim=1)
    errors = (sketches @ sketches.T - products) / (norms[:, None] * norms)
    assert float(errors.square().mean().sqrt()) < 2 / math.sqrt(521)
    assert torch.stack([squared for squared, _ in found]) == pytest.approx(products.diag(), rel=1e-6)
    assert sums.squared_norm(False) == pytest.approx(float(flat.sum(0).square().sum()), rel=1e-6)


def test_half_types_are_measured_in_float32_and_frozen_parameters_count(documents, tokenizer):
    model = make_model("gpt2", spread=2).bfloat16()
    found = run(model, documents, tokenizer).metrics
    model.lm_head.weight.requires_grad_(False)
    frozen = run(model, documents, tokenizer).metrics
    expected = run(model.float(), documents, tokenizer).metrics
    assert found == frozen == pytest.approx(expected, rel=1e-6)


def state(model):
    """Return all that a measurement must not change."""
    tensors = [*model.parameters(), *model.buffers()]
    return (
        [(t.data_ptr(), t.dtype, t.requires_grad, None if t.grad is None else t.grad.clone()) for t in tensors],
        [t.detach().clone() for t in tensors],
        [module.training for module in model.modules()],
        [bool(p._post_accumulate_grad_hooks) for p in model.parameters()],
    )  # fmt: skip


@pytest.fixture
def half_trained():
    """Return a model of a half type in the midst of something: frozen parts, gradients, a part in training."""
    model = make_model("opt").bfloat16()
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 2 == 0)
        if index % 3 == 0:
            parameter.grad = torch.full_like(parameter, 0.5)
    return model


def assert_same(before, after) -> None:
    for one, other in zip(before, after, strict=True):
        if isinstance(one, list | tuple):
            assert_same(one, other)
        elif isinstance(one, torch.Tensor):
            assert torch.equal(one, other)
        else:
            assert one == other


def test_model_is_left_as_it_was(half_trained, documents, tokenizer):
    before = state(half_trained)
    run(half_trained, documents, tokenizer)
    assert_same(before, state(half_trained))


def test_model_is_left_as_it_was_after_an_error(half_trained, documents, tokenizer, monkeypatch):
    half_trained.model.decoder.layers[1].train()
    before = state(half_trained)

    def use():
        with differentiable(half_trained) as parameters:
            assert all(p.requires_grad and p.grad is None and p.dtype == torch.float32 for p in parameters)
            assert not any(module.training for module in half_trained.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert_same(before, state(half_trained))

    def fail(self):
        raise torch.OutOfMemoryError("out of memory")

    before = state(half_trained.eval())
    monkeypatch.setattr(torch.Tensor, "backward", fail)
    with pytest.raises(LmsatError, match="float32 on a sequence of 40 tokens: set noise_sequence lower"):
        run(half_trained, documents, tokenizer)
    assert_same(before, state(half_trained))


def test_broken_and_quantised_models_are_refused(documents, tokenizer):
    model = make_model("gpt_neox")
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = math.nan
    with pytest.raises(LmsatError, match=r"the loss of document .* is not finite: the weight lm_head.weight"):
        run(model, documents, tokenizer)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.nan_to_num().to(torch.int8)
    with (
        pytest.raises(LmsatError, match=r"no parameter .* is of floating point, .*: load it unquantised"),
        differentiable(model),
    ):
        pass


def test_attention_that_takes_halves_alone_is_put_aside(documents, tokenizer, monkeypatch):
    """FlashAttention refuses the float32 of which gradients are made; it comes back afterwards."""
    model = make_model("llama").bfloat16()
    chosen = []
    model.config._attn_implementation = "flash_attention_2"
    monkeypatch.setattr(
        model,
        "set_attn_implementation",
        lambda kind: chosen.append(kind) or setattr(model.config, "_attn_implementation", kind),
    )
    with differentiable(model):
        assert model.config._attn_implementation == "sdpa"
    assert chosen == ["sdpa", "flash_attention_2"]
    with differentiable(model.float()):
        assert chosen == ["sdpa", "flash_attention_2"], "a model in float32 has never had it"
