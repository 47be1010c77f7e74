"""Losses and scores over a training that never was: runs that fall, rise, or only vary about their curve."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from lmsat_plugin.analysis.stats.autoregressive import simulate

# LMSAT_TEST_RUNS=1000 gives the operating characteristics that docs/saturation.md states.
RUNS = int(os.environ.get("LMSAT_TEST_RUNS", "100"))
STEPS = np.arange(1, 29) * 5000


def table_of(values, steps=STEPS, model="m", **columns) -> pd.DataFrame:
    """Return a table of losses, as a CSV holds it."""
    return pd.DataFrame({"model": model, "step": steps, "loss": values, **columns})


def results_of(values, steps=STEPS, task="piqa", metric="acc", model="m", higher=True, **columns) -> pd.DataFrame:
    """Return a tidy table of results."""
    return pd.DataFrame(
        {
            "model": model,
            "step": steps,
            "task": task,
            "metric": metric,
            "value": values,
            "higher_is_better": higher,
            **columns,
        }
    )


def correlated(rng, runs: int, size: int, phi: float) -> np.ndarray:
    """Return runs of autoregressive noise of variance one."""
    return simulate(rng.standard_normal((runs, size)), np.full(runs, phi))


def noise_of(rng, size) -> np.ndarray:
    return simulate(rng.standard_normal((1, size)), np.array([rng.uniform(0, 0.4)]))[0]


def healthy(rng, steps=STEPS) -> np.ndarray:
    """Return a power law, which in half of the runs ends in a plateau, with correlated noise of 0.01 about it."""
    size = len(steps)
    curve = rng.uniform(20, 200) * (steps / 5000) ** -rng.uniform(0.3, 0.8)
    if rng.random() < 0.5:
        curve = np.maximum(curve, curve[rng.integers(size // 4, size)])
    return 3 + 0.01 * (curve + noise_of(rng, size))


def falling(rng, size=28, scale=0.01, phi=0.0) -> np.ndarray:
    return 3 + 0.8 * (np.arange(1, size + 1)) ** -0.7 + scale * correlated(rng, 1, size, phi)[0]
