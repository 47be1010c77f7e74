"""The settings of lmsat_rank_head: which ranks are measured, and with which options heads are trained."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, field_validator

from lmsat_plugin.probes.head_tokens import HeadTokensSettings

PAPERS_BATCH = 256 * 2048
"""Tokens per batch in Godey et al. 2024 (App. B.1), understood as 256 sequences of Pythia's length."""
_STEPS = 256
# Learning rates of Godey et al. 2024, Fig. 9, by the width of the model and the rank of the head.
_PAPERS_RATES = {
    1024: {32: 2e-2, 64: 1e-2, 256: 1e-2, 512: 7e-3, 768: 5e-3, 1024: 5e-3},
    2048: {32: 2e-2, 64: 1e-2, 256: 1e-2, 512: 7e-3, 1024: 2e-3, 2048: 2e-3},
    4096: {64: 1e-2, 128: 5e-3, 512: 5e-3, 768: 2e-3, 2048: 2e-3, 3072: 1e-3, 4096: 1e-3},
}
SEARCHED = (0.25, 0.5, 1.0, 2.0, 4.0)
"""The multiples of the default learning rate that a search tries."""
SEARCHED_SHARE = 0.1
"""The share of the text on which the search trains each of them."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple | None) else [value]


class RankHeadSettings(HeadTokensSettings):
    """Which heads are measured and how they are trained; without ``train_tokens`` none is trained."""

    ranks: Annotated[
        Annotated[tuple[Annotated[int, Field(gt=0, strict=True)], ...], Field(min_length=1)] | None,
        BeforeValidator(_listed),
    ] = None
    """Powers of two up to the head's width, and the width, by default."""
    train_tokens: PositiveInt | None = None
    """Tokens to train on; 150,000,000 in the paper."""
    train_corpus: str | None = None
    """A corpus to train on; by default the part of ``corpus`` that is not measured."""
    init: Literal["svd", "normal"] = "svd"
    """The first factors: of the truncated head, or independent normal entries as in the paper."""
    batch_tokens: PositiveInt | None = None
    """Tokens per step; by default so many that there are 256 steps, at least 1,024, at most the paper's 524,288."""
    learning_rate: PositiveFloat | tuple[PositiveFloat, ...] | Literal["search"] | None = None
    """The peak: one, one for each rank, or ``search`` for the best of five around the default."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """Both kinds of Adam with betas 0.9 and 0.95, as Pythia's; SGD with a momentum of 0.9."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """The weight decay of the optimizer."""
    train_seed: int = 0
    """The seed of the order of the text, and of normal entries."""
    heads: str | None = None
    """A folder for the heads, for ``--model_args head=FILE``, and for the state of a running training."""

    @property
    def step_tokens(self) -> int:
        """Tokens a step."""
        default = min(PAPERS_BATCH, max(1024, (self.train_tokens or 0) // _STEPS))
        return self.batch_tokens or default

    @field_validator("ranks")
    @classmethod
    def _different(cls, ranks: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if ranks is not None and (twice := sorted({r for r in ranks if ranks.count(r) > 1})):
            raise ValueError(f"rank {twice[0]} is given twice")
        return ranks


def default_rate(init: str, rank: int, width: int, batch_tokens: int) -> float:
    """Return a peak learning rate: from ``normal`` the paper's, from ``svd`` one of our own.

    The paper's (App. B.1, Fig. 9) are interpolated on log axes in rank and width, and constant beyond its models. From
    ``svd`` it is 0.004 · √d / r · √(tokens of a batch / 1024), at most 0.01: found on small models and batches, it is
    near the paper's for the paper's models and batches.
    """
    if init == "svd":
        return min(1e-2, 4e-3 * math.sqrt(width * batch_tokens / 1024) / rank)
    logs = [
        np.interp(math.log(rank), np.log(list(rates)), np.log(list(rates.values()))) for rates in _PAPERS_RATES.values()
    ]
    return math.exp(np.interp(math.log(width), np.log(list(_PAPERS_RATES)), logs))
