"""Scores beside losses of runs that never were: of abilities that appear at a loss, and of ones that grow smoothly."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from lmsat_plugin.analysis import find_emergence
from lmsat_plugin.analysis.emergence import Scores

RISES = {
    "line": lambda loss: 0.9 * np.maximum(2.2 - loss, 0),
    "curve": lambda loss: 1.3 * np.maximum(2.2 - loss, 0) ** 1.5,
    "saturating": lambda loss: 0.4 * (1 - np.exp(-np.maximum(2.2 - loss, 0) / 0.2)),
}
SMOOTH = {
    "linear": lambda loss: 0.25 * (3.2 - loss),
    "slow exponential": lambda loss: 0.4 * np.exp(-(loss - 1.75)),
    "exponential": lambda loss: 0.4 * np.exp(-4 * (loss - 1.75)),
    "slow logistic": lambda loss: 0.45 / (1 + np.exp(3 * (loss - 2.1))),
    "logistic": lambda loss: 0.45 / (1 + np.exp(8 * (loss - 2.1))),
}
CHANCE = {"acc": 0.25, "brier_score": 0.75}


def runs_of(rng, models: int | None = None) -> list[np.ndarray]:
    """Return losses of runs of several sizes, which overlap."""
    models = models or int(rng.integers(5, 9))
    runs = []
    for final in np.linspace(1.75, 2.65, models):
        t = np.arange(1, (checkpoints := int(rng.integers(10, 21))) + 1) / checkpoints
        runs.append(final + 0.35 * (t**-0.4 - 1) + rng.normal(0, 0.004, checkpoints))
    return runs


def wandering(rng, checkpoints: int, sd: float, correlation: float) -> np.ndarray:
    covariance = sd**2 * correlation ** abs(np.subtract.outer(np.arange(checkpoints), np.arange(checkpoints)))
    return rng.multivariate_normal(np.zeros(checkpoints), covariance)


def table_of(seed, rise, metric="acc", *, models=None, questions=3000, sd=0.01, correlation=0.7, **columns):
    """Return a CSV's table of noisy scores, ``rise`` above chance."""
    rng = np.random.default_rng(seed)
    tables = []
    for index, losses in enumerate(runs_of(rng, models)):
        gains = rise(losses) + wandering(rng, len(losses), sd, correlation)
        if metric == "acc":
            scores = rng.binomial(questions, np.clip(0.25 + gains, 0, 1)) / questions
        else:
            scores = 0.75 - gains + rng.normal(0, math.sqrt(0.15 / questions), len(losses))
        tables.append(
            pd.DataFrame({"model": f"run-{index}", "step": range(len(losses)), "loss": losses, "score": scores})
        )
    return pd.concat(tables, ignore_index=True).assign(
        task="quiz", metric=metric, chance=CHANCE[metric], n_samples=questions, **columns
    )


def three_tasks(seed: int = 0) -> pd.DataFrame:
    """Return scores of a task that breaks at 2.2, of one that improves from the start, and of one at chance."""
    rng = np.random.default_rng(seed)
    rows = []
    for index, final in enumerate(np.linspace(1.75, 2.65, 5)):
        t = np.arange(1, 16) / 15
        losses = final + 0.35 * (t**-0.4 - 1)
        for step, loss in enumerate(losses, 1):
            scores = {"mmlu": max(2.2 - loss, 0), "hellaswag": 0.3 * (3.1 - loss), "race": 0.0}
            rows += [
                (f"run-{index}", 10 * step, loss, task, "acc", 0.25 + gain + rng.normal(0, 0.008), 3000)
                for task, gain in scores.items()
            ]
    return pd.DataFrame(rows, columns=["model", "step", "loss", "task", "metric", "score", "n_samples"])


def verdict(table, **arguments):
    (found,) = find_emergence(table, **arguments)
    return found


def made_scores(losses, scores, *, chance=None, perfect=None, sign=1, **columns) -> Scores:
    """Return scores of one task; ``columns`` such as the model of each checkpoint."""
    table = pd.DataFrame({"model": "m", "loss": losses, "score": scores, "variance": 0.0, **columns})
    return Scores(
        task="quiz", metric="acc", variant=None, loss="loss", chance=chance, perfect=perfect, sign=sign, table=table
    )
