"""A model's digest: the same as long as nothing changes, another one after each change of a number of any type."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lmsat_plugin.model.fixed import model_digest

TENSORS = {
    "odd": torch.arange(2051.0),
    "large": torch.arange(2042.0 * 8).reshape(16, -1),
    "half": torch.arange(1023.0).half(),
    "bfloat16": torch.ones(3, 5, dtype=torch.bfloat16),
    "double": torch.ones(7, dtype=torch.float64),
    "scalar": torch.tensor(1.0),
    "truth": torch.ones(9, dtype=torch.bool),
    "bytes": torch.arange(16, dtype=torch.uint8),
    "complex": torch.ones(3, dtype=torch.complex64),
    "slice": torch.arange(99.0)[1:],
    "transposed": torch.arange(12.0).reshape(3, 4).T,
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
def test_each_number_counts(tensor):
    module = nn.Module()
    module.register_buffer("tensor", tensor.clone())
    before = model_digest(module)
    assert model_digest(module) == before
    for index in {0, tensor.numel() - 1, tensor.numel() // 2}:
        place = module.tensor.view(-1) if module.tensor.is_contiguous() else module.tensor.T.view(-1)
        kept = place[index].clone()
        place[index] = 0 if kept != 0 else 1
        assert model_digest(module) != before
        place[index] = kept
        assert model_digest(module) == before


def test_modes_hooks_and_forward_count_and_what_is_empty_or_elsewhere_does_not_fail():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"), nn.Embedding(0, 3))
    before = model_digest(model)
    model[0].eval()
    assert model_digest(model) != before
    model[0].train()
    handle = model[0].register_forward_hook(lambda *_: None)
    assert model_digest(model) != before
    handle.remove()
    assert model_digest(model) == before
    model[0].forward = lambda states: states
    assert model_digest(model) != before
