"""LM heads of lower rank, in the place of a model's own.

Shapes: V rows, D width, R rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.probes.base import head_weight
from lmsat_plugin.probes.spectrum import triangle

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def truncate_head(model: PreTrainedModel, rank: int) -> None:
    """Replace the LM head's weight by its best approximation of a rank, in the Frobenius norm.

    W_R = W P_R, P_R the projector on the first R right singular vectors (Eckart and Young; Godey et al. 2024,
    Lemma 5.2), computed in float64. A tied head is untied: the input embeddings stay as they are.

    Raises `LmsatError` for a rank that is no whole number from 1 to the head's width.
    """
    weight_VD = head_weight(model)
    width = weight_VD.shape[1]
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= width:
        raise LmsatError(
            f"head_rank={rank} is not a rank of this head: give a whole number from 1 to {width}"
        )
    vectors_RD = torch.linalg.svd(triangle(weight_VD)).Vh[:rank]
    low_VD = torch.cat(
        [(rows.to(vectors_RD) @ vectors_RD.T @ vectors_RD).to(weight_VD) for rows in weight_VD.split(8192)]
    )
    old = model.get_output_embeddings()
    new = nn.Linear(width, len(low_VD), bias=getattr(old, "bias", None) is not None, device="meta")
    new.weight = nn.Parameter(low_VD, requires_grad=False)
    if new.bias is not None:
        new.bias = old.bias
    model.config.tie_word_embeddings = False
    model.set_output_embeddings(new)
