"""Chance accuracy by task, and the value of each metric at chance."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from lmsat_plugin.metrics import metric

if TYPE_CHECKING:
    import pandas as pd

_OPTIONS = {
    2: "winogrande wsc wsc273 piqa copa boolq rte wic storycloze xstorycloze clozet cluewsc winograd qnli",
    3: "siqa social_iqa cb anli_r1 anli_r2 anli_r3 mnli",
    4: "hellaswag race arc_easy arc_challenge sciq logiqa openbookqa mmlu c3 ceval ceval-valid cmmlu swag",
    5: "commonsense_qa aqua_rat",
}
_OPTIONS_OF = {task: options for options, tasks in _OPTIONS.items() for task in tasks.split()}
# Subjects of MMLU, under lm-eval's old name and its present one, and of C-Eval.
_FAMILIES = {"hendrycksTest-": 4, "mmlu_": 4, "ceval-valid_": 4, "cmmlu_": 4}


def options_of(task: str) -> int | None:
    """Return how many options the questions of a task have; None where that is unknown.

    It is four for ARC and C3, as their authors take it, though a few of their questions have another number.
    """
    name = _lm_eval_name(task)
    family = next((options for prefix, options in _FAMILIES.items() if name.startswith(prefix)), None)
    return _OPTIONS_OF.get(name, family)


def measured_chances(table: pd.DataFrame) -> dict[str, float]:
    """Return the chance accuracy by task, where results hold it as the metric ``chance`` of sweeps."""
    rows = table[(table.metric == "chance") & table.value.between(0, 1)]
    return {str(task): float(value) for task, value in rows.groupby("task").value.median().items()}


def chance_level(task: str, name: str, measured: Mapping[str, float] = MappingProxyType({})) -> float | None:
    """Return the value of a metric at chance; None where it is unknown or the metric has none.

    Among C options it is 1/C for accuracies and the probability of the right option, and 1 − 1/C for the Brier score,
    summed over options (Du et al. 2024, Sec. 4). For open answers it is 0.

    ``task`` is lm-eval's name or lmsat's; ``measured`` are chance accuracies of further tasks (`measured_chances`).
    """
    options, kind = options_of(task), metric(name).chance
    accuracy = measured.get(task) if options is None else 1 / options
    if kind == "zero" or (kind == "accuracy" and _lm_eval_name(task).startswith("lambada")):
        return 0.0
    if accuracy is None or kind is None:
        return None
    return accuracy if kind == "accuracy" else 1 - accuracy


def _lm_eval_name(task: str) -> str:
    """Return lm-eval's name of a task of lmsat's."""
    if not task.startswith("lmsat-"):
        return task
    return task.removeprefix("lmsat-").removesuffix("-pythia").replace("-", "_")
