"""Curves of score against loss, with a break or smooth, and the fits of all of them at once.

Shapes: P checkpoints, C curves, R tables of scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from lmsat_plugin.analysis.emergence.noise import Noise

_POWERS = (1.0, 1.25, 1.5, 1.75, 2.0)
_SATURATIONS = tuple(np.geomspace(0.08, 1.6, 8))
THRESHOLDS = 200
_LEAST_BEND = 0.15
"""Width of the sharpest bend of a smooth curve, as a share of the spread of the losses."""
LEAST_BESIDE = 4
"""Fewest checkpoints on either side of a threshold."""


def break_curves(losses_P: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return curves that are flat at losses above a threshold η, their η and their parameters: [C, P], [C], [C].

    Below η they rise as (η − L)^p with p from 1 to 2, or as 1 − e^(−(η − L)/h) (Du et al. 2024, Sec. 5).
    """
    span = _core(losses_P)
    curves: list[tuple[np.ndarray, float, int]] = []
    for eta in _thresholds(losses_P):
        below_P = np.maximum(eta - losses_P, 0) / span
        curves += [(below_P**power, eta, 3 if power == 1 else 4) for power in _POWERS]
        curves += [(1 - np.exp(-below_P / width), eta, 4) for width in _SATURATIONS]
    shapes, etas, parameters = zip(*curves, strict=True)
    return np.array(shapes), np.array(etas), np.array(parameters)


def smooth_curves(losses_P: np.ndarray) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Return curves that rise from the start, their names and their numbers of parameters: [C, P], C names, [C].

    These are lines, parabolas whose vertex is beyond the losses seen, exponentials of either bend, logistic curves, and
    lines that bend smoothly from flat to steep, w ln(1 + e^((η − L)/w)).
    """
    span = np.ptp(losses_P)
    x_P = (losses_P.max() - losses_P) / span
    # Runs begin at losses far above those of most checkpoints, which rates and middles are scaled by.
    core = _core(losses_P) / span
    middles = np.concatenate([np.linspace(0, 1 - core, 8)[:-1], np.linspace(1 - core, 1 + core / 2, 40)])
    curves: list[tuple[str, np.ndarray, int]] = [("straight line", x_P, 2)]
    for beyond in (0.0, 0.1, 0.25, 0.5, 1.0, 2.0):
        curves += [("parabola", (x_P + beyond) ** 2, 3), ("parabola", -((1 + beyond - x_P) ** 2), 3)]
    for rate in np.geomspace(0.5, 40 / core, 28):
        bends = np.exp(rate * (x_P - 1)), -np.exp(-rate * x_P)
        curves += [("exponential curve", shape_P, 3) for shape_P in bends]
    for middle, rate in product(middles, np.geomspace(2, 80 / core, 18)):
        curves.append(("logistic curve", 1 / (1 + np.exp(-rate * (x_P - middle))), 4))
    for middle, width in product(middles, core * np.geomspace(_LEAST_BEND, 0.5, 4)):
        curves.append(("bent line", np.logaddexp(0, (x_P - middle) / width) * width, 4))
    names, shapes, parameters = zip(*curves, strict=True)
    return np.array(shapes), list(names), np.array(parameters)


def _core(losses_P: np.ndarray) -> float:
    """Return the spread of the lower nine tenths of the losses, at least a twentieth of the whole spread."""
    return max(float(np.quantile(losses_P, 0.9) - losses_P.min()), float(np.ptp(losses_P)) / 20)


def _thresholds(losses_P: np.ndarray) -> np.ndarray:
    """Return the thresholds to try, rising: evenly spaced ones, and others at quantiles of the losses."""
    ordered = np.sort(losses_P)
    inner = ordered[LEAST_BESIDE - 1 : len(ordered) - LEAST_BESIDE + 1]
    even = np.linspace(inner[0], min(inner[-1], inner[0] + _core(losses_P)), THRESHOLDS // 2)
    return np.unique(np.concatenate([even, np.quantile(inner, np.linspace(0, 1, THRESHOLDS // 2))]))


@dataclass(frozen=True, eq=False)
class CurveFits:
    """Fits of C curves, baseline + rise · shape with rise ≥ 0, to scores whose noise is known up to its scale."""

    ones_P: np.ndarray
    """The constant curve, whitened, of norm one."""
    shapes_CP: np.ndarray
    """The shapes, whitened, orthogonal to the baseline, of norm one."""
    parameters_C: np.ndarray

    @classmethod
    def of(cls, shapes_CP: np.ndarray, parameters_C: np.ndarray, noise: Noise) -> CurveFits:
        """Return the fits of curves under some noise."""
        ones_P = noise.whiten(np.ones(shapes_CP.shape[1]))
        ones_P /= np.linalg.norm(ones_P)
        white_CP = noise.whiten(shapes_CP)
        white_CP -= np.outer(white_CP @ ones_P, ones_P)
        norms_C = np.linalg.norm(white_CP, axis=1)
        # A curve that is constant at all checkpoints has no shape.
        white_CP /= np.where(norms_C > 1e-9 * max(norms_C.max(), 1e-300), norms_C, np.inf)[:, None]
        return cls(ones_P=ones_P, shapes_CP=white_CP, parameters_C=parameters_C)

    def sums(self, white_RP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the residual sums of squares of the baseline alone, and of each curve: [R], [R, C]."""
        flat_R = np.maximum((white_RP**2).sum(1) - (white_RP @ self.ones_P) ** 2, 1e-300)
        along_RC = np.maximum(white_RP @ self.shapes_CP.T, 0)
        return flat_R, np.maximum(flat_R[:, None] - along_RC**2, 1e-300)

    def criteria(self, white_RP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the Bayesian information criterion of the baseline alone, and of each curve: [R], [R, C]."""
        points = white_RP.shape[1]
        flat_R, left_RC = self.sums(white_RP)
        return (
            points * np.log(flat_R / points) + np.log(points),
            points * np.log(left_RC / points) + self.parameters_C * np.log(points),
        )

    def curve(self, white_P: np.ndarray, index: int) -> np.ndarray:
        """Return the fit of one curve, whitened."""
        shape_P = self.shapes_CP[index]
        return self.ones_P * (white_P @ self.ones_P) + shape_P * max(float(white_P @ shape_P), 0)
