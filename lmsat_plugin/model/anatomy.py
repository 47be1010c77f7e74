"""Where the parts of a language model are: embeddings, blocks, final states, LM head.

Shapes: N tokens, D width of the last hidden state, V rows of the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.size import count_parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel


# Enough to tell a wrong head or layer from a right one, few enough to cost little.
_CHECK_TOKENS = 16


@dataclass(frozen=True)
class Head:
    """The map from the last hidden state to logits: ``cap(scale · (h Wᵀ + b))``.

    ``weight_VD`` may be of any float type; logits come out in float32, or float64 if an input is float64, and
    are never rounded to a half type on the way.
    """

    weight_VD: torch.Tensor
    bias_V: torch.Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    tied: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The type of the logits: float32 or float64."""
        return torch.promote_types(self.weight_VD.dtype, torch.float32)

    def prepare(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """Move hidden states to the head's device, in the type that `logits` multiplies them in."""
        hidden_ND = hidden_ND.to(self.weight_VD.device)
        if self._multiplies_halves(hidden_ND):
            return hidden_ND
        return hidden_ND.to(torch.promote_types(hidden_ND.dtype, self.dtype))

    def _multiplies_halves(self, hidden_ND: torch.Tensor) -> bool:
        # A CUDA kernel multiplies half types exactly and adds in float32, at tensor-core speed.
        return hidden_ND.is_cuda and hidden_ND.dtype == self.weight_VD.dtype and hidden_ND.dtype.itemsize == 2

    def logits(self, hidden_ND: torch.Tensor, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Return the logits of rows ``start`` to ``stop`` for `prepare`\\ d states, shape [N, stop − start]."""
        weight = self.weight_VD[start:stop]
        if self._multiplies_halves(hidden_ND):
            logits = torch.mm(hidden_ND, weight.T, out_dtype=torch.float32)
        else:
            logits = hidden_ND @ weight.to(hidden_ND.dtype).T
        return self.finish(logits, None if self.bias_V is None else self.bias_V[start:stop])

    def finish(self, logits: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Make logits of products with the weight, in place where that can be: add the bias, scale, cap."""
        if bias is not None:
            logits += bias.to(logits.dtype)
        if self.scale != 1.0:
            logits *= self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


@dataclass(frozen=True)
class Anatomy:
    """A model taken apart, as far as it could be verified.

    ``blocks`` is None where the blocks' inputs are not the model's own hidden states: these are then asked of
    the model. ``head`` is None where applying it does not give the model's own logits: these are then used.
    """

    model: PreTrainedModel
    base: nn.Module
    blocks: tuple[nn.Module, ...] | None
    head: Head | None
    tied: bool
    layer_widths: tuple[int, ...]
    """Width of each layer's states, embeddings first; empty for a model that does not give its states."""


def head_weight(model: PreTrainedModel) -> torch.Tensor:
    """Return the weight of a model's LM head, shape [V, D]. Raises `LmsatError` for a model without one."""
    weight = getattr(model.get_output_embeddings(), "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        raise LmsatError(
            f"{type(model).__name__} has no LM head of ordinary weights: "
            "load a causal language model whose head is not quantised"
        )
    # Under tensor parallelism each process holds a part.
    return weight.full_tensor().detach() if hasattr(weight, "full_tensor") else weight.detach()


def unwrap(model: Any) -> PreTrainedModel:
    """Return the transformers model inside a PEFT wrapper; adapters stay active in it."""
    while hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return model


def _find_head(model: PreTrainedModel) -> Head | None:
    try:
        weight = head_weight(model)
    except LmsatError:
        return None
    module, config = model.get_output_embeddings(), model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    scale *= getattr(config, "lm_head_multiplier", None) or 1.0  # Falcon-H1
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
    bias = getattr(module, "bias", None)
    return Head(
        weight_VD=weight,
        bias_V=None if bias is None else bias.detach(),
        scale=float(scale),
        softcap=getattr(config, "final_logit_softcapping", None),  # Gemma
        tied=is_tied(model),
    )


def is_tied(model: PreTrainedModel) -> bool:
    """Return whether the LM head and the input embeddings are one tensor."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    pointers = {getattr(part, "weight", torch.empty(0)).data_ptr() for part in (inputs, outputs)}
    return len(pointers) == 1 and 0 not in pointers


def size_of(model: PreTrainedModel) -> dict[str, int]:
    """Return a model's ``n_params``, ``n_params_non_embedding``, ``hidden_size`` and ``vocab_size``.

    A shared tensor counts once. Embeddings are those of tokens and of learned positions, and the LM head (the
    convention of Kaplan et al. 2020, Sec. 2.1); ``vocab_size`` is the number of rows, padding included.
    """
    counts = count_parameters(model)
    # transformers knows how many of a quantised tensor there are.
    total = model.num_parameters()
    config = model.config.get_text_config()
    return {
        "n_params": total,
        "n_params_non_embedding": total - (counts.total - counts.non_embedding),
        "hidden_size": int(config.hidden_size),
        "vocab_size": model.get_input_embeddings().weight.shape[0],
    }


def position_limit(model: PreTrainedModel) -> int | None:
    """Return how many positions a model is made for; None if its configuration does not say."""
    config = model.config.get_text_config()
    limits = (getattr(config, key, None) for key in ("n_positions", "max_position_embeddings", "n_ctx"))
    return next((int(limit) for limit in limits if limit), None)


def _find_blocks(base: nn.Module, n_blocks: int | None) -> tuple[nn.Module, ...] | None:
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks:
            return tuple(module)
    return None


def hidden_states(
    base: nn.Module,
    blocks: tuple[nn.Module, ...] | None,
    inputs_BT: torch.Tensor,
    on_layer: Callable[[int, torch.Tensor], None] | None,
) -> torch.Tensor:
    """Run the model without its head; return the last hidden state [B, T, D].

    ``on_layer(index, states)`` is called with each layer's states as they appear, so that none need be kept:
    index 0 is the input of the first block, the last index the state after the final norm.
    """
    if on_layer is None:
        return base(input_ids=inputs_BT, use_cache=False).last_hidden_state
    if blocks is None:
        states = base(input_ids=inputs_BT, use_cache=False, output_hidden_states=True).hidden_states
        for index, state in enumerate(states):
            on_layer(index, state)
        return states[-1]

    def before(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            on_layer(index, args[0] if args else kwargs["hidden_states"])

        return hook

    handles = [
        block.register_forward_pre_hook(before(index), with_kwargs=True) for index, block in enumerate(blocks)
    ]
    try:
        last = base(input_ids=inputs_BT, use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    on_layer(len(blocks), last)
    return last


def own_logits(
    anatomy: Anatomy, inputs_BT: torch.Tensor, on_layer: Callable[[int, torch.Tensor], None] | None
) -> torch.Tensor:
    """Run the whole model, for a head of unknown form; return its logits [B, T, V].

    Otherwise the same as `hidden_states`.
    """
    out = anatomy.model(input_ids=inputs_BT, use_cache=False, output_hidden_states=on_layer is not None)
    if on_layer is not None:
        for index, state in enumerate(out.hidden_states):
            on_layer(index, state)
    return out.logits


def _close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> bool:
    """Return whether two tensors differ by no more than ``tolerance`` of the largest entry."""
    if ours.shape != theirs.shape:
        return False
    difference = (ours.double() - theirs.double().to(ours.device)).abs().max()
    # A model of NaN or infinite states is taken apart as usual; the probes then say where the trouble is.
    return not torch.isfinite(difference) or bool(difference <= tolerance * theirs.double().abs().max())


@torch.no_grad()
def dissect(loaded: Any, window: torch.Tensor) -> Anatomy:
    """Take a causal language model apart and check the parts on the first tokens of ``window``, ids [T].

    Raises `LmsatError` for an encoder-decoder model.
    """
    model = unwrap(loaded)
    if getattr(model.config, "is_encoder_decoder", False):
        raise LmsatError(
            f"{type(model).__name__} is an encoder-decoder model: lmsat measures decoder-only models"
        )
    inputs_BT = window[None, :_CHECK_TOKENS].to(model.get_input_embeddings().weight.device)
    theirs = model(input_ids=inputs_BT, use_cache=False, output_hidden_states=True)
    expected = theirs.hidden_states or ()
    # A model of a half type rounds its logits, whatever type it returns them in.
    tolerance = 3e-2 if model.dtype.itemsize == 2 else 1e-4
    base, head = model.base_model, _find_head(model)
    blocks = _find_blocks(base, getattr(model.config.get_text_config(), "num_hidden_layers", None))
    seen: list[torch.Tensor] = []
    try:
        last_TD = hidden_states(base, blocks, inputs_BT, lambda _, states: seen.append(states))[0]
    except (AttributeError, KeyError, IndexError, TypeError):
        # Not built as transformers builds its models: ask the model as a whole for everything.
        return Anatomy(model, base, None, None, is_tied(model), tuple(h.shape[-1] for h in expected))
    # The first is the blocks' input by construction; Mamba's own list leaves it out.
    if not all(
        any(_close(states, one, tolerance) for one in (*expected[index : index + 1], *expected))
        for index, states in enumerate(seen[1:], 1)
    ):
        blocks = None
    if head is not None and (
        last_TD.shape[-1] != head.weight_VD.shape[1]
        or not _close(head.logits(head.prepare(last_TD)), theirs.logits[0], tolerance)
    ):
        head = None
    widths = tuple(states.shape[-1] for states in (seen if blocks else expected))
    return Anatomy(model, base, blocks, head, is_tied(model), widths)
