"""What guessing scores: the level that a score has to leave before it says anything."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

_OPTIONS = {
    2: "winogrande wsc wsc273 piqa copa boolq rte wic storycloze xstorycloze clozet cluewsc winograd qnli",
    3: "siqa social_iqa cb anli_r1 anli_r2 anli_r3 mnli",
    4: "hellaswag race arc_easy arc_challenge sciq logiqa openbookqa mmlu c3 ceval ceval-valid cmmlu swag",
    5: "commonsense_qa aqua_rat",
}
_OF_TASK = {task: options for options, tasks in _OPTIONS.items() for task in tasks.split()}
# A hypothesis of the old lm-eval, and the subjects of MMLU and C-Eval.
_FAMILIES = {"hendrycksTest-": 4, "mmlu_": 4, "ceval-valid_": 4, "cmmlu_": 4}
_ACCURACIES = {"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "correct_choice_prob"}
_OPEN = {"exact_match", "em", "f1", "pass@1"}


def options_of(task: str) -> int | None:
    """Return how many options a task's questions have; None where that is not known.

    ARC and C3 have a few questions with other numbers of options; like their authors, this takes four.
    """
    name = _plain(task)
    family = next((options for prefix, options in _FAMILIES.items() if name.startswith(prefix)), None)
    return _OF_TASK.get(name, family)


def measured_chances(table: pd.DataFrame) -> dict[str, float]:
    """Return what a guess hits, by task, where results hold it: the metric ``chance`` of sweeps."""
    rows = table[(table.metric == "chance") & table.value.between(0, 1)]
    return {str(task): float(value) for task, value in rows.groupby("task").value.median().items()}


def chance_level(
    task: str, metric: str, measured: Mapping[str, float] = MappingProxyType({})
) -> float | None:
    """Return what guessing scores: 1/C for accuracies and the right option's probability with C options.

    1 − 1/C for the Brier score, summed over options (Du et al. 2024, Sec. 4); 0 for open answers; None where the
    number of options is not known or the metric has no such level. ``measured`` is what a guess hits in other tasks,
    as `measured_chances` returns it.
    """
    options = options_of(task)
    guess = measured.get(task.partition(" (")[0]) if options is None else 1 / options
    if metric in _ACCURACIES and _plain(task).startswith("lambada"):
        return 0.0
    if guess is not None and metric in _ACCURACIES:
        return guess
    if guess is not None and metric == "brier_score":
        return 1 - guess
    return 0.0 if metric in _OPEN else None


def _plain(task: str) -> str:
    """Return lm-eval's name of a task, without the settings beside it."""
    name = re.sub(r" \(.*", "", task)
    if name.startswith("lmsat-"):
        name = name.removeprefix("lmsat-").removesuffix("-pythia").replace("-", "_")
    return name
