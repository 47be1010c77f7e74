"""A model taken apart into blocks, final states and LM head, each part checked against the model's own output.

Shapes: B windows, T tokens, D width of a layer, V rows of the head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.lazy import torch, without_gradients
from lmsat_plugin.model.adapters import check_kind
from lmsat_plugin.model.lm_head import Head, find_head
from lmsat_plugin.model.spectrum import in_float64

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    StatesCallback = Callable[[int, torch.Tensor], None]

# Enough to tell a wrong head or layer from a right one, few enough to cost little.
_CHECK_TOKENS = 16
# Keys of a configuration that say where it comes from.
_ORIGIN = {"_name_or_path", "_commit_hash", "transformers_version", "architectures"}
# OPT's and BART's tables begin with rows for padding.
_MORE_POSITIONS = 8


@dataclass(frozen=True)
class Anatomy:
    """A model taken apart into parts that were verified.

    ``blocks`` is None where the blocks' inputs are not the model's own hidden states: these are then taken from the
    model's output. ``head`` is None where it does not reproduce the model's own logits: these are then used.
    """

    model: PreTrainedModel
    base: nn.Module
    blocks: tuple[nn.Module, ...] | None
    head: Head | None
    layer_widths: tuple[int, ...]
    """Width of each layer's states, embeddings first; empty for a model that does not give its states."""


def unwrap(model: Any) -> PreTrainedModel:
    """Return the transformers model inside a PEFT wrapper; adapters stay active in it.

    Raises `LmsatError` for a kind of adapter that is more than layers in that model, such as prompts.
    """
    while hasattr(model, "get_base_model"):
        for config in getattr(model, "peft_config", {}).values():
            check_kind(f"the adapter on {type(model).__name__}", config.to_dict())
        model = model.get_base_model()
    return model


def input_device(model: PreTrainedModel) -> torch.device:
    """Return where a model takes its tokens: where its embedding is or, if that is offloaded, where it is computed."""
    embedding = model.get_input_embeddings()
    hook = getattr(embedding, "_hf_hook", None)
    if embedding.weight.is_meta and hook is not None:
        return torch.device(hook.execution_device)
    return embedding.weight.device


def architecture_of(config: Any) -> dict[str, Any]:
    """Return the part of a configuration that describes the model, not where it comes from."""
    return {key: value for key, value in config.to_dict().items() if key not in _ORIGIN}


def position_limit(model: PreTrainedModel) -> int | None:
    """Return how many positions a model is made for; None if its configuration does not say."""
    config = model.config.get_text_config()
    limits = (getattr(config, key, None) for key in ("n_positions", "max_position_embeddings", "n_ctx"))
    return next((int(limit) for limit in limits if limit), None)


def check_positions(model: PreTrainedModel, length: int) -> None:
    """Raise `LmsatError` for a window longer than the table of positions of a model that has one.

    On a GPU a position beyond it breaks the process' connection to the device, so it is not tried. Rotary embeddings
    and ALiBi have no table.
    """
    limit = position_limit(model)
    if limit is not None and length > limit and _has_position_table(model, limit):
        raise LmsatError(f"max_length={length} is beyond the {limit} positions that the model has: set it lower")


def _has_position_table(model: PreTrainedModel, limit: int) -> bool:
    """Return whether a module has a row for each of its positions, and a few more at most."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    others = (module for module in model.modules() if module is not inputs)
    tables = [module.weight for module in others if isinstance(module, torch.nn.Embedding)]
    # GPT-J and CodeGen keep sines, and XGLM a module, that is no embedding.
    tables += [tensor for name, tensor in (*model.named_buffers(), *model.named_parameters()) if "position" in name]
    outside = {id(getattr(module, "weight", None)) for module in (inputs, outputs)}
    rows = [table.shape[-2] for table in tables if table.ndim >= 2 and id(table) not in outside]
    return any(limit <= count <= limit + _MORE_POSITIONS for count in rows)


def hidden_states(
    base: nn.Module, blocks: tuple[nn.Module, ...] | None, inputs_BT: torch.Tensor, on_layer: StatesCallback | None
) -> torch.Tensor:
    """Run the model without its head; return the last hidden state [B, T, D].

    ``on_layer(index, states)`` is called with each layer's states as they appear, so that none has to be kept:
    index 0 is the input of the first block, the last index the state after the final norm.
    """
    if on_layer is None:
        return base(input_ids=inputs_BT, use_cache=False).last_hidden_state
    if blocks is None:
        states = base(input_ids=inputs_BT, use_cache=False, output_hidden_states=True).hidden_states
        for index, state in enumerate(states):
            on_layer(index, state)
        return states[-1]

    def before(index: int, block: nn.Module, args: tuple, kwargs: dict) -> None:
        on_layer(index, args[0] if args else kwargs["hidden_states"])

    handles = [
        block.register_forward_pre_hook(functools.partial(before, index), with_kwargs=True)
        for index, block in enumerate(blocks)
    ]
    try:
        last = base(input_ids=inputs_BT, use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    on_layer(len(blocks), last)
    return last


def own_logits(model: PreTrainedModel, inputs_BT: torch.Tensor, on_layer: StatesCallback | None) -> torch.Tensor:
    """Run the whole model and return its own logits [B, T, V]; call ``on_layer`` as `hidden_states` does."""
    out = model(input_ids=inputs_BT, use_cache=False, output_hidden_states=on_layer is not None)
    if on_layer is not None:
        for index, state in enumerate(out.hidden_states):
            on_layer(index, state)
    return out.logits


def _close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> bool:
    """Return whether two tensors differ by no more than ``tolerance`` of the largest entry."""
    if ours.shape != theirs.shape:
        return False
    ours, theirs = in_float64(ours), in_float64(theirs)
    difference = (ours - theirs.to(ours.device)).abs().max()
    # A model with NaN or infinite states is taken apart as usual: the probes then name the layer or the document.
    return not torch.isfinite(difference) or bool(difference <= tolerance * theirs.abs().max())


@without_gradients
def dissect(loaded: Any, window: torch.Tensor) -> Anatomy:
    """Take a causal language model apart and check the parts on the first tokens of ``window``, ids [T].

    Raises `LmsatError` for an encoder-decoder model, and for one whose predictions see the token that they predict.
    """
    model = unwrap(loaded)
    if getattr(model.config, "is_encoder_decoder", False):
        raise LmsatError(f"{type(model).__name__} is an encoder-decoder model: lmsat measures decoder-only models")
    embedding = model.get_input_embeddings().weight
    tokens_T = window[:_CHECK_TOKENS].to(input_device(model))
    half = len(tokens_T) // 2
    # A second window, with other tokens in its second half, shows whether predictions see what comes after.
    inputs_BT = tokens_T.repeat(2, 1)
    inputs_BT[1, half:] = (inputs_BT[1, half:] + 1) % embedding.shape[0]
    theirs = model(input_ids=inputs_BT, use_cache=False, output_hidden_states=True)
    expected = theirs.hidden_states or ()
    # A model of a half type rounds its logits, also if it returns them in another type.
    tolerance = 3e-2 if model.dtype.itemsize == 2 else 1e-4
    if half and not _close(theirs.logits[1, :half], theirs.logits[0, :half], tolerance):
        raise LmsatError(
            f"{type(model).__name__} is not causal: it predicts a token from those behind it, too, so that its loss "
            "means nothing; leave it out, or measure lmsat_head alone"
        )
    base = model.base_model
    head = find_head(model)
    n_blocks = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = (tuple(module) for module in base.modules() if isinstance(module, torch.nn.ModuleList))
    blocks = next((modules for modules in lists if len(modules) == n_blocks), None)
    seen: list[torch.Tensor] = []
    try:
        last_TD = hidden_states(base, blocks, inputs_BT, lambda _, states: seen.append(states))[0]
    except (AttributeError, KeyError, IndexError, TypeError):
        # The parts are not those of transformers' own models: the model as a whole gives states and logits.
        seen, blocks, head = [], None, None
    else:
        if not _are_states_of_model(seen, expected, tolerance):
            blocks = None
        if head is not None and (
            last_TD.shape[-1] != head.weight_VD.shape[1]
            or not _close(head.logits(head.prepare(last_TD)), theirs.logits[0], tolerance)
        ):
            head = None
    return Anatomy(
        model=model,
        base=base,
        blocks=blocks,
        head=head,
        layer_widths=tuple(states.shape[-1] for states in (seen if blocks else expected)),
    )


def _are_states_of_model(seen: list[torch.Tensor], expected: tuple[torch.Tensor, ...], tolerance: float) -> bool:
    # The first is the blocks' input by construction: Mamba's own list leaves it out.
    return all(
        any(_close(states, own, tolerance) for own in (*expected[index : index + 1], *expected))
        for index, states in enumerate(seen[1:], 1)
    )
