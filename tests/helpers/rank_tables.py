"""Losses and accuracies by head rank of models that never were, as `rank_figure` takes them."""

from __future__ import annotations

import itertools
import math

import pandas as pd

from lmsat_plugin.figures.rank import ACCURACIES, LOSSES

RANKS = (32, 64, 128, 256, 512, 768, 1024)
TASKS = ("lambada_openai", "arc_easy", "piqa", "sciq")
NO_LOSSES, NO_ACCURACIES = pd.DataFrame(columns=LOSSES), pd.DataFrame(columns=ACCURACIES)


def losses_of(models=("m",), curves=("trained", "weighted", "truncated"), ranks=RANKS, stderr=0.1) -> pd.DataFrame:
    """Return losses in another order than that of the ranks."""
    rows = [
        (model, curve, rank, 1 - rank / ranks[-1], 3 + i + (1 + j) * (10 - math.log2(rank)), stderr * (1 + j), 3 + i)
        for i, model in enumerate(models)
        for j, curve in enumerate(curves)
        for rank in reversed(ranks)
    ]
    return pd.DataFrame(rows, columns=LOSSES)


def accuracies_of(models=("m",), tasks=TASKS, curves=("truncated",), width=1024.0, stderr=0.01) -> pd.DataFrame:
    rows: list[tuple] = []
    for (i, model), (j, task) in itertools.product(enumerate(models), enumerate(tasks)):
        base = 0.2 + 0.1 * j + 0.02 * i
        rows += [(model, task, "acc", None, width, base + 0.2, stderr)]
        rows += [
            (model, task, "acc", curve, rank, base + 0.0001 * rank, stderr) for curve in curves for rank in RANKS[:-1]
        ]
    return pd.DataFrame(rows, columns=ACCURACIES)
