"""The attention weights of a model: its eager attention is switched on while they are read, and put back afterwards.

Shapes: B sequences, H heads, T tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from lmsat_plugin.errors import first_sentence
from lmsat_plugin.lazy import torch, without_gradients
from lmsat_plugin.model.anatomy import input_device
from lmsat_plugin.model.memory import is_broken_device, is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


class NoWeightsError(Exception):
    """A model gives no attention weights; the message says why."""


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Have a model compute its attention weights one by one, and as it did before afterwards, also after an error.

    Raises `NoWeightsError` for a model that cannot be switched.
    """
    configs = list(_configs(model))
    before = [(config, config._attn_implementation) for config in configs]
    try:
        # A model that cannot be switched logs a warning, or raises.
        if any(implementation not in ("eager", None) for _, implementation in before):
            model.set_attn_implementation("eager")
    except (AttributeError, ImportError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        _put_back(before)
        raise NoWeightsError(f"its attention cannot be switched to eager ({first_sentence(error)})") from error
    try:
        yield
    finally:
        _put_back(before)


def _configs(model: PreTrainedModel) -> Iterator[Any]:
    """Yield each configuration in which a part of the model looks up how it computes attention, once."""
    seen: set[int] = set()
    for module in model.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation") and id(config) not in seen:
            seen.add(id(config))
            yield config


def _put_back(before: list[tuple[Any, Any]]) -> None:
    for config, implementation in before:
        if config._attn_implementation != implementation:
            # The setter of some versions looks into parts of the configuration: what stands there is put back, too.
            config._attn_implementation = implementation
    for config, implementation in before:
        if config._attn_implementation != implementation:
            config._attn_implementation_internal = implementation


@without_gradients
def attention_weights(model: PreTrainedModel, tokens_BT: torch.Tensor) -> list[torch.Tensor]:
    """Return the weights of each layer that has some, [B, H, T, T], float32 or better; rows are queries.

    Call it within `eager_attention`. Raises `NoWeightsError` for a model that gives none.
    """
    name = type(model).__name__
    try:
        out = model.base_model(input_ids=tokens_BT.to(input_device(model)), use_cache=False, output_attentions=True)
    except (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and (is_out_of_memory(error) or is_broken_device(error)):
            raise
        raise NoWeightsError(f"{name} does not run with output_attentions ({first_sentence(error)})") from error
    weights = []
    for of_layer in getattr(out, "attentions", None) or ():
        with suppress(AttributeError):
            if of_layer.ndim == 4 and of_layer.shape[-2:] == (tokens_BT.shape[1],) * 2:
                weights.append(of_layer.to(torch.promote_types(of_layer.dtype, torch.float32)))
    if not weights:
        raise NoWeightsError(f"{name} has no attention weights")
    return weights
