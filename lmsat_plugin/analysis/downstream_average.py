"""The mean of downstream scores above chance, subjects of one exam together, beside the line through other models.

Shapes: K models.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from lmsat_plugin.analysis.chance import chance_level, lm_eval_name, measured_chances
from lmsat_plugin.metrics import ACCURACIES
from lmsat_plugin.results.training_order import natural

_FAMILY = re.compile(r"(hendrycksTest|mmlu_pro|mmlu|cmmlu|ceval-valid|leaderboard_(?:bbh|gpqa|musr|math))(?:$|[-_])")
_SUBGROUPS = re.compile("leaderboard_math_hard|mmlu_(?:stem|humanities|social_sciences|other)")
_OF_ALL = "leaderboard"
"""The group of all that the Open LLM Leaderboard measures, as tables name it that do not say what is a group."""
_LEAST_FOR_LINE = 5
_MOST_COMPARED = 100
"""The most sets of tasks that are compared in pairs, those of most models."""
Key = tuple[str, int, str, str]
"""Task, number of shots (−1 if unknown), metric, filter."""


@dataclass(frozen=True)
class DownstreamAverage:
    """The mean over tasks of (score − chance) / (1 − chance), which is 0 at chance and 1 for a perfect model."""

    scores: dict[str, tuple[float, float]]
    """Mean and standard error by model; NaN for an unknown error."""
    tasks: tuple[str, ...]
    """The tasks of the mean, for people; the subjects of one exam count as one task."""
    lacking: tuple[str, ...] = ()
    """The models with downstream scores that lack some of these tasks."""

    @property
    def method(self) -> str:
        """The definition of the mean, in one sentence."""
        tasks = "1 task" if len(self.tasks) == 1 else f"{len(self.tasks)} tasks"
        return (
            f"The downstream average is the mean of (score − chance) / (1 − chance) over the {tasks} "
            f"that {'these' if self.lacking else 'all of these'} models have: {', '.join(self.tasks)}."
            + (f" No average, since they lack some of these tasks: {', '.join(self.lacking)}." if self.lacking else "")
        )


def downstream_average(finals: pd.DataFrame, groups: Collection[str] = ()) -> DownstreamAverage | None:
    """Return the average of models with downstream scores, over tasks that all of them have.

    ``finals`` are rows of a tidy table, of one checkpoint of each model. Of a task with several numbers of shots the
    least is taken. ``groups`` are tasks that are means of others: they count only as the whole score of an exam such
    as MMLU. Where all models have fewer tasks in common than half of those that the median model has, the models are
    as many as have so many tasks in common. None without a score of known chance accuracy.
    """
    scores: dict[Key, dict[str, tuple[float, float]]] = defaultdict(dict)
    measured = measured_chances(finals)
    finals = finals[finals.metric.isin(ACCURACIES) & np.isfinite(finals.value)]
    shots = finals.num_fewshot.fillna(-1).astype(int)
    keys = zip(finals.task, shots, finals.metric, finals["filter"], strict=True)
    for key, model, value, stderr in zip(keys, finals.model, finals.value, finals.stderr, strict=True):
        is_exam = _FAMILY.fullmatch(lm_eval_name(key[0]))
        if (key[0] not in (*groups, _OF_ALL) or is_exam) and chance_level(key[0], key[2], measured) is not None:
            scores[key][model] = value, stderr
    if not scores:
        return None
    everyone = {model for by_model in scores.values() for model in by_model}
    models, common = _comparable({model: {key for key in scores if model in scores[key]} for model in everyone})
    families = defaultdict(list)
    for key in _one_per_task(common):
        families[_family(key)].append(key)
    for family, members in families.items():
        families[family] = _members(family, members)
    averages = {}
    for model in sorted(models, key=natural):
        mean, variance = 0.0, 0.0
        for members in families.values():
            for key in members:
                chance = chance_level(key[0], key[2], measured) or 0.0
                weight = 1 / (len(families) * len(members) * (1 - chance))
                value, stderr = scores[key][model]
                mean += weight * (value - chance)
                variance += (weight * stderr) ** 2
        averages[model] = mean, float(np.sqrt(variance))
    return DownstreamAverage(
        scores=averages,
        tasks=tuple(_name(family, families[family]) for family in sorted(families, key=natural)),
        lacking=tuple(sorted(everyone - models, key=natural)),
    )


def _family(key: Key) -> str:
    """Return the exam that a task is a subject of; a task that is none by itself."""
    match = _FAMILY.match(lm_eval_name(key[0]))
    return match[1] if match else key[0]


def _comparable(of_models: Mapping[str, set[Key]]) -> tuple[set[str], set[Key]]:
    """Return as many models as have at least half as many tasks in common as the median model has, and these tasks.

    Of equally many models those with more tasks in common are taken. Sought are the tasks of one model, those that two
    share, and those that all share, each time with all models that have them.
    """
    counts = Counter(frozenset(keys) for keys in of_models.values())
    own = [keys for keys, _ in counts.most_common(_MOST_COMPARED)]
    candidates = {*own, *(first & second for first, second in combinations(own, 2)), frozenset.intersection(*counts)}
    sizes = {keys: len(set(map(_family, keys))) for keys in {*counts, *candidates}}
    enough = float(np.median([sizes[keys] for keys in counts.elements()])) / 2

    def extent(keys: frozenset[Key]) -> tuple[int, int, int, list[Key]]:
        models = sum(count for has, count in counts.items() if keys <= has)
        return models, sizes[keys], len(keys), sorted(keys)

    common = max((keys for keys in candidates if sizes[keys] >= enough), key=extent)
    return {model for model, has in of_models.items() if common <= has}, set(common)


def _members(family: str, keys: list[Key]) -> list[Key]:
    """Return what counts of an exam: its whole score, or its parts, never both.

    Of MMLU the whole score counts, where there is one. Of the Open LLM Leaderboard's exams the parts do: these have
    chance levels of their own.
    """
    names = {key: lm_eval_name(key[0]) for key in keys}
    whole = [key for key, name in names.items() if name == family]
    parts = [key for key, name in names.items() if name != family and not _SUBGROUPS.fullmatch(name)]
    return (parts or whole or keys) if family.startswith("leaderboard_") else (whole or parts or keys)


def _one_per_task(common: Iterable[Key]) -> list[Key]:
    """Return one key of each task: that of the fewest shots, and of these that of the first metric."""
    by_task: dict[str, Key] = {}
    for key in sorted(common, key=lambda key: (key[0], key[1], ACCURACIES.index(key[2]), key[3])):
        by_task.setdefault(key[0], key)
    return list(by_task.values())


def _name(family: str, members: list[Key]) -> str:
    first = members[0]
    subjects = f"{len(members)} subjects, " if len(members) > 1 else ""
    shots = f", {first[1]}-shot" if first[1] >= 0 else ""
    return f"{family} ({subjects}{first[2]}{shots})"


def above_line(x_K: np.ndarray, y_K: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return how far each y lies above the least-squares line through all other points, and its standard error.

    Both have shape [K]. They are the deleted residual e / (1 − h) and the error s₋ᵢ / √(1 − h) of a prediction
    (Belsley, Kuh and Welsch 1980, Sec. 2.1). None for fewer than five points, and if all points but one share one x.
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
