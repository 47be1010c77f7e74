"""Put an LM head of lower rank in the place of a model's own: truncated, or from a file.

Shapes: V rows, D width, R rank.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.float32 import exact_float32
from lmsat_plugin.model.head_files import RestrictedHead, describe_head, load_factors
from lmsat_plugin.model.lm_head import Head, head_weight
from lmsat_plugin.model.low_rank import Truncation

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def truncate_head(model: PreTrainedModel, rank: int) -> None:
    """Replace the LM head's weight by its best approximation of a rank, in the Frobenius norm.

    See `Truncation`. A tied head is untied: the input embeddings stay as they are.

    Raises `LmsatError` for a rank that is not a whole number from 1 to the head's width.
    """
    weight_VD = head_weight(model)
    width = weight_VD.shape[1]
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= width:
        raise LmsatError(f"head_rank={rank} is not a rank of this head: give a whole number from 1 to {width}")
    _replace_head(model, Truncation.of(Head(weight_VD)).weight(weight_VD, rank))


@torch.no_grad()
def load_restricted_head(model: PreTrainedModel, path: Path) -> RestrictedHead:
    """Replace the LM head's weight by the product of a file's factors, and return what that head is.

    A tied head is untied. Raises `LmsatError` for a file that is missing, holds no factors, or was made for another
    width or vocabulary.
    """
    left_VR, right_RD = load_factors(path)
    weight_VD = head_weight(model)
    if (len(left_VR), right_RD.shape[1]) != weight_VD.shape or left_VR.shape[1] != len(right_RD):
        raise LmsatError(
            f"head={path} is for a vocabulary of {len(left_VR)} rows and the width {right_RD.shape[1]}, but this "
            f"model has {weight_VD.shape[0]} and {weight_VD.shape[1]}: give a head of the same model"
        )
    with exact_float32():
        product_VD = left_VR.to(weight_VD.device) @ right_RD.to(weight_VD.device)
    _replace_head(model, product_VD.to(weight_VD.dtype))
    return describe_head(path)


def _replace_head(model: PreTrainedModel, weight_VD: torch.Tensor) -> None:
    old = model.get_output_embeddings()
    rows, width = weight_VD.shape
    new = nn.Linear(width, rows, bias=getattr(old, "bias", None) is not None, device="meta")
    new.weight = nn.Parameter(weight_VD, requires_grad=False)
    if new.bias is not None:
        new.bias = old.bias
    model.config.tie_word_embeddings = False
    hook = getattr(old, "_hf_hook", None)
    if hook is not None:
        # Of accelerate, for a model that is spread over devices: it brings the states to the head's.
        from accelerate.hooks import AlignDevicesHook, add_hook_to_module

        device = getattr(hook, "execution_device", None)
        place = AlignDevicesHook(execution_device=device, io_same_device=getattr(hook, "io_same_device", False))
        add_hook_to_module(new, place)
    model.set_output_embeddings(new)
