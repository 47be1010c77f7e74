"""Tables on scaling laws, written out from the papers, with noise."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmsat_plugin.analysis.scaling_laws import LAWS

TRUE = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}


def noise(points: int, seed: int, size: float = 0.005) -> np.ndarray:
    return np.exp(size * np.random.default_rng(seed).standard_normal(points))


def chinchilla_table(runs: int = 60, seed: int = 0, size: float = 0.01) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n, d = (np.exp(rng.uniform(*np.log(ends), runs)) for ends in ((7e7, 1.6e10), (5e9, 5e11)))
    loss = TRUE["E"] + TRUE["A"] / n ** TRUE["alpha"] + TRUE["B"] / d ** TRUE["beta"]
    loss *= np.exp(size * rng.standard_normal(runs))
    return pd.DataFrame({"model": [f"m{i}" for i in range(runs)], "n_params": n, "tokens": d, "loss": loss})


def grid(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.meshgrid(x, y, indexing="ij")
    return first.ravel(), second.ravel()


def simulated(law: str, size: float = 0.005, seed: int = 7) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return a table of a law, written out from the paper, and its constants, Kaplan's own where they are his."""
    n = np.geomspace(1e5, 1e9, 24)
    if law == "chinchilla":
        return chinchilla_table(120, size=size, seed=seed), TRUE
    if law == "kaplan-n":
        true = {"N_c": 8.8e13, "alpha_N": 0.076}
        table = {"model": n, "n_params_non_embedding": n, "loss": (8.8e13 / n) ** 0.076}
    elif law == "kaplan-d":
        true = {"D_c": 5.4e13, "alpha_D": 0.095}
        table = {"model": n, "tokens": 100 * n, "loss": (5.4e13 / (100 * n)) ** 0.095}
    elif law == "kaplan-c":
        true = {"C_c": 1.6e7, "alpha_C": 0.057}
        flops = n * 1e12
        table = {"model": n, "flops": flops, "loss": (1.6e7 / (flops / 8.64e19)) ** 0.057}
    elif law == "kaplan-nd":
        true = {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}
        n, d = grid(np.geomspace(1e5, 1e9, 8), np.geomspace(2e7, 2e10, 6))
        loss = ((6.4e13 / n) ** (0.076 / 0.103) + 1.8e13 / d) ** 0.103
        table = {"run": range(48), "n_params_non_embedding": n, "tokens": d, "loss": loss}
    elif law == "kaplan-ns":
        true = {"N_c": 6.5e13, "S_c": 2.1e3, "alpha_N": 0.077, "alpha_S": 0.76}
        n, s = grid(np.geomspace(1e5, 1e9, 12), np.geomspace(2e3, 2e5, 10))
        loss = (6.5e13 / n) ** 0.077 + (2.1e3 / s) ** 0.76
        table = {"model": n, "n_params_non_embedding": n, "s_min": s, "loss": loss}
    elif law == "context":
        true = {"a": 2.3, "b": 5.4, "c": 0.62}
        position = np.arange(1, 129)
        table = {"position": position, "loss": 2.3 + 5.4 * position**-0.62}
    else:
        true = {"offset": 0.7, "slope": 0.9}
        model, step = grid(np.arange(10), np.arange(1, 9))
        loss = 4 - 0.2 * model - 0.1 * np.log(step)
        table = {"model": model, "loss": loss, "step": step, "other_loss": 0.7 + 0.9 * loss}
    frame = pd.DataFrame(table)
    frame[LAWS[law].target] *= noise(len(frame), seed, size)
    return frame, true
