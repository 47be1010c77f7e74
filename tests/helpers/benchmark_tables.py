"""Scores of recipes by sizes, seeds and checkpoints, made from known noise and known differences."""

from __future__ import annotations

import numpy as np
import pandas as pd

SIZES = {"60M": 6e7, "300M": 3e8, "1B": 1e9}
STEPS = np.arange(1000, 31000, 1000)


def recipes_by_sizes(noise: float = 0.01, between_seeds: float = 0.0, seeds: int = 1, seed: int = 0) -> pd.DataFrame:
    """Return accuracies of three recipes at three sizes, which rise along a line, on 2,000 questions."""
    rng, rows = np.random.default_rng(seed), []
    for place, (size, number) in enumerate(SIZES.items()):
        for recipe, better in (("c4", 0.0), ("dolma", 0.03), ("dclm", 0.1)):
            for run in range(seeds):
                shift = between_seeds * rng.standard_normal()
                score = 0.3 + 0.1 * place + better + 2e-6 * STEPS + shift + noise * rng.standard_normal(len(STEPS))
                rows.append(
                    pd.DataFrame({"model": f"{recipe}-{size}", "step": STEPS, "score": score}).assign(
                        size=size, n_params=number, run=f"seed{run}" if seeds > 1 else None
                    )
                )
    return pd.concat(rows, ignore_index=True).assign(task="arc_easy", metric="acc", n_samples=2000)
