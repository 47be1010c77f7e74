"""Losses by position in the context on a power law, as the arrays of lmsat_loss."""

from __future__ import annotations

import numpy as np

TOKENS = np.maximum(1, 300 - 0.3 * np.arange(512))


def positions(a, b, c, tokens_P, rng=None, spread=3.0) -> dict[str, np.ndarray]:
    loss_P = a + b * np.arange(1.0, len(tokens_P) + 1) ** -c
    if rng is not None:
        loss_P = loss_P + spread / np.sqrt(tokens_P) * rng.standard_normal(len(tokens_P))
    return {"loss/by_position": loss_P, "loss/by_position_tokens": tokens_P}
