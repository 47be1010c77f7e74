"""The mean of downstream scores above chance, and what of it the loss does not explain.

Shapes: K models.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.chance import chance_level, measured_chances
from lmsat_plugin.metrics import ACCURACIES

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

_FAMILY = re.compile(r"(hendrycksTest|mmlu|cmmlu|ceval-valid)[-_]")
_LEAST_FOR_LINE = 5
Key = tuple[str, int, str, str]
"""Task, number of examples (−1 if unknown), metric, filter."""


@dataclass(frozen=True)
class DownstreamAverage:
    """The mean over tasks of (score − chance) / (1 − chance), which is 0 at chance and 1 without a mistake."""

    scores: dict[str, tuple[float, float]]
    """Mean and standard error by model; NaN for an error that is unknown."""
    tasks: tuple[str, ...]
    """What the mean is over, for people: the subjects of one exam count as one task."""

    @property
    def method(self) -> str:
        """What the mean is over, in words."""
        return (
            f"The downstream average is the mean of (score − chance) / (1 − chance) over the {len(self.tasks)} "
            f"tasks that all of these models have: {', '.join(self.tasks)}."
        )


def downstream_average(finals: pd.DataFrame) -> DownstreamAverage | None:
    """Return the average of each model with downstream scores, over the tasks that all of these have.

    Of a task with several numbers of examples the least counts. None if there is no task in common whose chance level
    is known.

    Args:
        finals: Rows of a tidy table, of one checkpoint of each model.
    """
    scores: dict[Key, dict[str, tuple[float, float]]] = defaultdict(dict)
    measured = measured_chances(finals)
    finals = finals[finals.metric.isin(ACCURACIES) & np.isfinite(finals.value)]
    shots = finals.num_fewshot.fillna(-1).astype(int)
    keys = zip(finals.task, shots, finals.metric, finals["filter"], strict=True)
    for key, model, value, stderr in zip(keys, finals.model, finals.value, finals.stderr, strict=True):
        if chance_level(key[0], key[2], measured) is not None:
            scores[key][model] = value, stderr
    models = {model for one in scores.values() for model in one}
    chosen = _chosen(key for key, one in scores.items() if set(one) == models)
    if not chosen:
        return None
    families = defaultdict(list)
    for key in chosen:
        families[_family(key[0])].append(key)
    for family, members in families.items():
        # The exam's own score stands for its subjects.
        families[family] = [key for key in members if key[0] == family] or members
    found = {}
    for model in sorted(models):
        mean, variance = 0.0, 0.0
        for members in families.values():
            for key in members:
                chance = chance_level(key[0], key[2], measured) or 0.0
                weight = 1 / (len(families) * len(members) * (1 - chance))
                value, stderr = scores[key][model]
                mean += weight * (value - chance)
                variance += (weight * stderr) ** 2
        found[model] = mean, float(np.sqrt(variance))
    return DownstreamAverage(
        found, tuple(_name(family, members) for family, members in sorted(families.items()))
    )


def _chosen(common: Iterable[Key]) -> list[Key]:
    """Return one key of each task: the fewest examples, then the first metric."""
    by_task: dict[str, Key] = {}
    for key in sorted(common, key=lambda key: (key[0], key[1], ACCURACIES.index(key[2]), key[3])):
        by_task.setdefault(key[0], key)
    return list(by_task.values())


def _family(task: str) -> str:
    found = _FAMILY.match(task)
    return found[1] if found else task


def _name(family: str, members: list[Key]) -> str:
    first = members[0]
    subjects = f"{len(members)} subjects, " if len(members) > 1 else ""
    shots = f", {first[1]}-shot" if first[1] >= 0 else ""
    return f"{family} ({subjects}{first[2]}{shots})"


def above_line(x_K: np.ndarray, y_K: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return how far each y lies above the line through all other points, and the standard error of that, shape [K].

    The deleted residual e / (1 − h) of a least-squares line, with the error s₋ᵢ / √(1 − h) of a prediction (Belsley,
    Kuh and Welsch 1980, Sec. 2.1). None for fewer than five points, and where the others of a point have one x.
    """
    points = len(x_K)
    if points < _LEAST_FOR_LINE:
        return None
    centred_K = x_K - x_K.mean()
    if not centred_K.any():
        return None
    leverage_K = 1 / points + centred_K**2 / (centred_K**2).sum()
    if (leverage_K > 1 - 1e-9).any():
        return None
    slope = centred_K @ y_K / (centred_K**2).sum()
    residual_K = y_K - y_K.mean() - slope * centred_K
    others_K = (residual_K**2).sum() - residual_K**2 / (1 - leverage_K)
    variance_K = np.maximum(others_K, 0.0) / (points - 3)
    return residual_K / (1 - leverage_K), np.sqrt(variance_K / (1 - leverage_K))
