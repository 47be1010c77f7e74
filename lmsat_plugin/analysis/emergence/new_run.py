"""How far the score of a new run, of a size that was not fitted, may lie from the sigmoid of the others.

Shapes: P checkpoints of the fitted runs, Z sizes of models, R draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.emergence.sigmoid import sigmoid
from lmsat_plugin.analysis.model_sizes import size_groups

if TYPE_CHECKING:
    import pandas as pd


def sizes_of(rows: pd.DataFrame) -> np.ndarray:
    """Return the number of each row's size, from 0 on, shape [P].

    Each model, by its name in ``model``, counts as a size where no two are of one size, or all are.
    """
    groups = [group.models for group in size_groups(rows.assign(group=rows["model"].astype(str)))]
    models = list(dict.fromkeys(rows["model"].astype(str)))
    if len(groups) < 2:
        groups = [(model,) for model in models]
    number = {model: index for index, group in enumerate(groups) for model in group}
    return rows["model"].astype(str).map(number).to_numpy()


@dataclass(frozen=True)
class Departures:
    """What is known of how far scores lie from the sigmoid of other sizes."""

    without_Z4: np.ndarray
    """The constants of the sigmoid without each size."""
    between: float
    """The root mean square over the sizes of the mean distance of a size from the sigmoid of the others."""
    within_P: np.ndarray
    """How far each score lies from that mean of its size."""

    @classmethod
    def of(cls, without_Z4: np.ndarray, losses_P: np.ndarray, values_P: np.ndarray, sizes_P: np.ndarray) -> Departures:
        """Return the departures of scores from the sigmoid that each size is left out of."""
        residuals_P = values_P - sigmoid(without_Z4, losses_P)[sizes_P, np.arange(len(losses_P))]
        means_Z = np.bincount(sizes_P, weights=residuals_P) / np.bincount(sizes_P)
        return cls(without_Z4, float(np.sqrt(np.mean(means_Z**2))), residuals_P - means_Z[sizes_P])

    def draws(self, loss: float, repetitions: int, seed: int) -> np.ndarray:
        """Return draws of how far the score of a new run at a loss lies from the sigmoid of all, shape [R].

        The runs of a size share what tells it from others, so that sizes are what is sampled. The curve's variance at
        the loss is that of the jackknife over sizes, (Z − 1)/Z Σ (m_z − mean)². That between sizes is added, by
        Student's t of Z − 1 degrees of freedom, and the scatter of the scores of one size.
        """
        if not repetitions:
            return np.zeros(0)
        means_Z = sigmoid(self.without_Z4, np.array([loss]))[:, 0]
        sizes, rng = len(means_Z), np.random.default_rng(seed)
        variance = (sizes - 1) * float(means_Z.var()) + self.between**2
        return rng.standard_t(sizes - 1, repetitions) * variance**0.5 + rng.choice(self.within_P, repetitions)
