"""The floating-point operations of a forward pass, by part, as PyTorch counts them on a model without weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.model.size import PROJECTIONS, part_of_block

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

# Gated delta layers compute in chunks of 64 tokens, which no configuration states.
_SHORT_TEXT = 64


@dataclass(frozen=True)
class ForwardFlops:
    """Floating-point operations for one token of a forward pass, by the parts of Kaplan et al. 2020, Table 1.

    A multiplication with an addition counts as two, so that a matrix costs two for each entry. Biases, norms and
    activation functions count as nothing. Of a mixture of experts, the experts that a token uses count.
    """

    embed: int
    """4 d_model, Kaplan's number: looking up an embedding is not a product that PyTorch counts."""
    attention_qkv: int
    attention_mask: int
    """Products of tokens with one another, for half the context: that is what a token of a causal model has before it
    on average (2 n_layer n_ctx d_attn in eq. 2.2). Many implementations compute all of it, which is twice as much.
    A sliding window is not taken into account."""
    attention_project: int
    feed_forward: int
    de_embed: int
    other: int
    """Products besides, such as those of state-space layers, or with a matrix between an embedding and blocks of
    another width."""

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(getattr(self, field.name) for field in fields(self))


def forward_flops(model: PreTrainedModel, n_ctx: int) -> ForwardFlops:
    """Return the operations for a token of a context of ``n_ctx`` tokens. The model is on the meta device.

    `torch.utils.flop_counter` counts texts of T, 2 T and 3 T tokens. Products with weights grow with T, those of tokens
    with one another with T², and padding is constant: F(T) = a T + b T² + c. A token costs a + b n_ctx / 2.

    Raises `LmsatError` for an architecture that does not run without weights.
    """
    length = _text_length(model)
    model = _countable(model)
    one, two, three = (_own_flops(model, times * length) for times in (1, 2, 3))
    parts = dict.fromkeys((field.name for field in fields(ForwardFlops)), 0.0)
    for name in one.keys() | two.keys() | three.keys():
        f1, f2, f3 = (flops.get(name, 0) for flops in (one, two, three))
        per_pair = (f3 - 2 * f2 + f1) / (2 * length**2)
        per_token = (f2 - f1) / length - 3 * length * per_pair
        module = model.get_submodule(name.partition(".")[2])
        parts[_part(model, name)] += per_token * _used_share(module, per_token, model)
        parts["attention_mask"] += per_pair * n_ctx / 2
    parts["embed"] = 4 * model.config.get_text_config().hidden_size
    return ForwardFlops(**{part: round(flops) for part, flops in parts.items()})


def _text_length(model: PreTrainedModel) -> int:
    """Return a number of tokens T whose multiples are whole chunks of the layers that compute in chunks."""
    config = model.config.get_text_config()
    chunks = (getattr(config, key, None) for key in ("chunk_size", "mamba_chunk_size", "block_size"))
    return max([_SHORT_TEXT, *(chunk for chunk in chunks if isinstance(chunk, int))])


def _countable(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy whose attention and experts are products that PyTorch can count and run without values."""
    model = copy.deepcopy(model).eval()
    # A fused attention is not counted on every device.
    model.set_attn_implementation("eager")
    if hasattr(model, "set_experts_implementation"):
        # Each token is multiplied with the weights of its own experts; a loop over experts would need the routing.
        model.set_experts_implementation("batched_mm")
    return model


def _used_share(module: nn.Module, per_token: float, model: PreTrainedModel) -> float:
    """Return which share of a module's operations a token needs: less than 1 where all experts see all tokens."""
    experts = [parameter for parameter in module.parameters(recurse=False) if parameter.ndim == 3]
    used = getattr(model.config.get_text_config(), "num_experts_per_tok", None)
    if used and experts and per_token == 2 * sum(parameter.numel() for parameter in experts):
        return used / len(experts[0])
    return 1.0


def _own_flops(model: PreTrainedModel, tokens: int) -> dict[str, int]:
    """Return the operations of each module for a text of ``tokens``, without those of the modules inside it."""
    counter = FlopCounterMode(display=False)
    try:
        _run(model, tokens, counter, masked=True)
    except Exception:
        # Some architectures look at the mask's values, most at the positions' values if there is no mask. Fake tensors
        # get past both without a mask, but take ten times as long as meta tensors.
        counter = FlopCounterMode(display=False)
        try:
            with FakeTensorMode(allow_non_fake_inputs=True):
                _run(model, tokens, counter, masked=False)
        except Exception as error:
            raise LmsatError(
                f"the operations of {type(model).__name__} cannot be counted, since it does not run without weights "
                f"({first_sentence(error)}): take the numbers of parameters alone"
            ) from error
    totals = {name: sum(counts.values()) for name, counts in counter.flop_counts.items() if name != "Global"}
    own = dict(totals)
    for name, flops in totals.items():
        parent = name.rpartition(".")[0]
        while parent and parent not in totals:
            parent = parent.rpartition(".")[0]
        if parent:
            own[parent] -= flops
    return own


def _run(model: PreTrainedModel, tokens: int, counter: FlopCounterMode, *, masked: bool) -> None:
    inputs = torch.zeros((1, tokens), dtype=torch.long, device="meta")
    mask = {"attention_mask": torch.ones_like(inputs)} if masked else {}
    with torch.no_grad(), counter:
        model(input_ids=inputs, use_cache=False, **mask)


def _part(model: PreTrainedModel, name: str) -> str:
    """Return the part of a module by its name, which begins with the model's class."""
    path = name.partition(".")[2]
    if model.get_submodule(path) is model.get_output_embeddings():
        return "de_embed"
    part = part_of_block(path)
    if part == "attention":
        return "attention_project" if path.rpartition(".")[2] in PROJECTIONS else "attention_qkv"
    return "feed_forward" if part == "mlp" else "other"
