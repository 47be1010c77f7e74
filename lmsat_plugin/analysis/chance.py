"""Chance accuracy by task, and the value of each metric at chance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from lmsat_plugin.metrics import metric, name_in_lm_eval

if TYPE_CHECKING:
    import pandas as pd

_OPTIONS = {
    2: "winogrande wsc wsc273 piqa copa boolq rte wic storycloze xstorycloze clozet cluewsc winograd qnli",
    3: "siqa social_iqa socialiqa cb anli_r1 anli_r2 anli_r3 mnli",
    4: "hellaswag race arc_easy arc_challenge sciq logiqa openbookqa mmlu c3 ceval ceval-valid cmmlu swag gpqa "
    "hendrycksTest leaderboard_gpqa",
    5: "commonsense_qa csqa aqua_rat",
    10: "leaderboard_mmlu_pro",
}
_OPTIONS_OF = {task: options for options, tasks in _OPTIONS.items() for task in tasks.split()}
# Subjects of MMLU-Pro, of MMLU under lm-eval's old name and its present one, and of C-Eval; parts of GPQA.
_FAMILIES = {
    **{"mmlu_pro": 10, "hendrycksTest-": 4, "mmlu_": 4, "ceval-valid_": 4, "cmmlu_": 4},
    **{"gpqa_": 4, "leaderboard_gpqa_": 4},
}
# The Open LLM Leaderboard's tasks with options that differ from part to part: options by part, as lm-eval lists them.
_PARTS = {
    "leaderboard_bbh": {
        2: "boolean_expressions causal_judgement formal_fallacies hyperbaton navigate snarks sports_understanding "
        "web_of_lies",
        3: "disambiguation_qa logical_deduction_three_objects tracking_shuffled_objects_three_objects",
        4: "temporal_sequences",
        5: "logical_deduction_five_objects penguins_in_a_table tracking_shuffled_objects_five_objects",
        6: "date_understanding movie_recommendation ruin_names salient_translation_error_detection",
        7: "logical_deduction_seven_objects tracking_shuffled_objects_seven_objects",
        11: "geometric_shapes",
        18: "reasoning_about_colored_objects",
        19: "object_counting",
    },
    "leaderboard_musr": {2: "murder_mysteries", 3: "team_allocation", 5: "object_placements"},
}
_PART_OPTIONS = {
    f"{group}_{part}": options
    for group, parts in _PARTS.items()
    for options, names in parts.items()
    for part in names.split()
}
_QUESTIONS = {
    **{"leaderboard_bbh_causal_judgement": 187, "leaderboard_bbh_penguins_in_a_table": 146},
    **{"leaderboard_bbh_snarks": 178, "leaderboard_musr_object_placements": 256},
}
"""Numbers of questions; other parts have 250. A group's score is weighted by them."""
# OLMo's names have the split and the form of the questions behind the task's.
_SPLIT = re.compile(r"_(?:val|test)(?:_(?:rc|mc))?$")


def options_of(task: str) -> int | None:
    """Return how many options the questions of a task have; None where that is unknown.

    It is four for ARC and C3, as their authors take it, though a few of their questions have another number; ten for
    MMLU-Pro, as the Open LLM Leaderboard takes it. Names of lmsat, lighteval, OLMES and OLMo are known, too.
    """
    name = lm_eval_name(task)
    family = next((options for prefix, options in _FAMILIES.items() if name.startswith(prefix)), None)
    return _OPTIONS_OF.get(name, _PART_OPTIONS.get(name, family))


def _chance_accuracy(task: str) -> float | None:
    """Return the share of answers that a guess gets right; of a group the mean over its questions."""
    parts = [name for name in _PART_OPTIONS if name.startswith(f"{task}_")] if task in _PARTS else []
    if parts:
        weights = [_QUESTIONS.get(name, 250) for name in parts]
        return sum(w / _PART_OPTIONS[name] for name, w in zip(parts, weights, strict=True)) / sum(weights)
    options = options_of(task)
    return None if options is None else 1 / options


def measured_chances(table: pd.DataFrame) -> dict[str, float]:
    """Return the chance accuracy by task, where results hold it as the metric ``chance`` of sweeps."""
    rows = table[(table.metric == "chance") & table.value.between(0, 1)]
    return {str(task): float(value) for task, value in rows.groupby("task").value.median().items()}


def chance_level(task: str, name: str, measured: Mapping[str, float] = MappingProxyType({})) -> float | None:
    """Return the value of a metric at chance; None where it is unknown or the metric has none.

    Among C options it is 1/C for accuracies and the probability of the right option, and 1 − 1/C for the Brier score,
    summed over options (Du et al. 2024, Sec. 4). For open answers it is 0.

    ``task`` is a name that `options_of` knows; ``measured`` are the chance accuracies of others (`measured_chances`).
    """
    known, kind = _chance_accuracy(task), metric(name).chance
    accuracy = measured.get(task) if known is None else known
    if kind == "zero" or (kind == "accuracy" and lm_eval_name(task).startswith("lambada")):
        return 0.0
    if accuracy is None or kind is None:
        return None
    return accuracy if kind == "accuracy" else 1 - accuracy


def lm_eval_name(task: str) -> str:
    """Return lm-eval's name of a task of lmsat's, lighteval's, OLMES' or OLMo's; any other name as it is."""
    if task.startswith("lmsat-"):
        return name_in_lm_eval(task)
    # lighteval's leaderboard|arc:challenge, OLMES' arc_challenge:rc::olmes, OLMo's arc_challenge_val_rc.
    name = task.rpartition("|")[2]
    candidates = (name, name.replace(":", "_"), name.partition(":")[0], _SPLIT.sub("", name))
    return next((one for one in candidates if one in _OPTIONS_OF), candidates[1])
