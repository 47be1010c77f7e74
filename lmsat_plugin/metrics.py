"""What is known of each metric: its better direction, range and unit, its value at chance; and which tasks are ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import Literal

Chance = Literal["accuracy", "error", "zero"]
"""A metric's value at chance: the chance accuracy g, the share of right options; or 1 − g; or 0."""


@dataclass(frozen=True)
class Metric:
    """One metric, of any task. What is unknown is None, or empty."""

    name: str
    higher_is_better: bool | None = None
    low: float | None = None
    high: float | None = None
    """``low`` and ``high`` are the ends of its range."""
    unit: str = ""
    chance: Chance | None = None

    @property
    def is_share(self) -> bool:
        """Whether it is a share or a probability, from 0 to 1."""
        return self.unit in ("proportion", "probability")

    @property
    def is_score(self) -> bool:
        """Whether it measures an ability: it rises with it, or is the Brier score."""
        return self.higher_is_better is True or self.chance == "error"

    @property
    def is_ratio(self) -> bool:
        """Whether two values are compared by their ratio, as perplexities are."""
        return _PERPLEXITY.search(self.name) is not None


_DIRECTIONS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_PERPLEXITY = re.compile(r"(^|_)(ppl|perplexity)($|_)")

_ROWS: tuple[tuple[str, bool | None, float | None, float | None, str, Chance | None], ...] = (
    ("acc acc_norm acc_bytes acc_mutual_info", True, 0, 1, "proportion", "accuracy"),
    ("acc_raw acc_per_token acc_per_char acc_per_byte acc_uncond", True, 0, 1, "proportion", "accuracy"),
    ("norm_correct_prob norm_correct_prob_per_token norm_correct_prob_per_char", True, 0, 1, "probability", "accuracy"),
    ("exact_match em pass@1 qem pem pqem extractive_match", True, 0, 1, "proportion", "zero"),
    ("prompt_level_strict_acc inst_level_strict_acc strict_acc", True, 0, 1, "proportion", None),
    ("prompt_level_loose_acc inst_level_loose_acc", True, 0, 1, "proportion", None),
    ("mc1 mc2 truthfulqa_mc1 truthfulqa_mc2", True, 0, 1, "proportion", None),
    ("f1", True, 0, 1, "", "zero"),
    ("correct_choice_prob", True, 0, 1, "probability", "accuracy"),
    ("brier_score", False, 0, 2, "", "error"),
    ("correct_prob correct_prob_per_token correct_prob_per_char", True, 0, 1, "probability", None),
    ("sum_logits_corr logits_per_token_corr logits_per_char_corr logits_per_byte_corr", True, None, None, "nats", None),
    ("soft_log logprob_margin", True, None, None, "nats", None),
    ("mcc", True, -1, 1, "", None),
    ("bleu rouge1 rouge2 rougeL chrf", True, None, None, "", None),
    ("perplexity word_perplexity byte_perplexity ppl", False, 1, inf, "", None),
    ("unigram_normalised_perplexity", False, 0, inf, "", None),
    ("loss", False, 0, inf, "nats per token", None),
    ("bits_per_byte bits_per_byte_corr", False, 0, inf, "bits per byte", None),
    ("unigram_loss", None, 0, inf, "nats per token", None),
    ("loss_frequent loss_medium loss_rare", False, 0, inf, "nats per token", None),
    ("accuracy", True, 0, 1, "proportion", None),
    ("entropy", None, 0, inf, "nats", None),
    ("calibration_error", False, 0, 1, "proportion", None),
    ("tokens bytes", None, 0, inf, "count", None),
    ("singular_entropy singular_entropy_linear", None, 0, inf, "nats", None),
    ("effective_rank effective_rank_last stable_rank", None, 1, inf, "", None),
    ("condition_number top_singular_ratio", None, 1, inf, "", None),
    ("sink_rate previous_token_share induction_share", None, 0, 1, "proportion", None),
    ("attention_entropy", None, 0, 1, "", None),
    ("induction_score", None, 0, 1, "", None),
    ("unigram_kl bigram_kl", None, 0, inf, "nats", None),
    ("bigram_coverage", None, 0, 1, "proportion", None),
    ("massive_ratio_max", None, 1, inf, "", None),
    ("massive_layer", None, 0, inf, "layer", None),
    ("kurtosis_max", None, -2, inf, "", None),
    ("norm_mean", None, 0, inf, "", None),
    ("rankme participation_ratio", None, 1, inf, "", None),
    ("alpha_req", None, -inf, inf, "", None),
    ("isoscore", None, 0, 1, "", None),
    ("top_direction_share", None, 0, 1, "proportion", None),
    ("spectral_norm_max outlier_ratio_max stable_rank_mean alpha_mean", None, 0, inf, "", None),
    ("top10_share_mean", None, 0, 1, "proportion", None),
    ("relative_change change_stable_rank_mean", None, 0, inf, "", None),
    ("change_cosine", None, -1, 1, "", None),
    ("cka_last cka_mean", None, -1, 1, "", None),
    ("principal_angle_last", None, 0, 90, "degrees", None),
    ("agreement", None, 0, 1, "proportion", None),
    ("jensen_shannon", None, 0, 1, "", None),
    ("loss_increase_8 loss_increase_4 loss_increase_3", False, -inf, inf, "nats per token", None),
    ("loss_increase_0.5 loss_increase_1 loss_increase_2", False, -inf, inf, "nats per token", None),
    ("critical_sharpness critical_sharpness_low critical_sharpness_high", None, 0, inf, "", None),
    ("anisotropy_last anisotropy_mean anisotropy_max", None, -1, 1, "", None),
)
"""Names, whether higher is better, the ends of the range, unit, chance."""
_KNOWN = {
    name: Metric(name=name, higher_is_better=higher, low=low, high=high, unit=unit, chance=chance)
    for names, higher, low, high, unit, chance in _ROWS
    for name in names.split()
}
_ABILITIES = frozenset(
    [
        "arc_challenge",
        "arc_easy",
        "c3",
        "ceval",
        "clozet",
        "cluewsc",
        "gsm8k",
        "gsm8k_zh",
        "hellaswag",
        "lambada",
        "logiqa",
        "mmlu",
        "nlpcc_kbqa",
        "piqa",
        "race",
        "sciq",
        "storycloze",
        "triviaqa",
        "wikitext",
        "winogrande",
        "wsc",
        "emergence",
        "emergence_hub",
        "pythia",
    ]
)
"""The downstream tasks and groups of lmsat, ``lmsat-arc-easy`` and the like."""
ACCURACIES = (
    *("acc", "acc_norm", "exact_match", "em", "f1", "pass@1"),
    *("acc_raw", "acc_per_char", "acc_per_token", "acc_uncond", "acc_per_byte"),
)
"""Shares of right answers and the like. The first one that a task has is shown as its score."""


def metric(name: str) -> Metric:
    """Return what is known of a metric; only the name of one that is not listed here."""
    return _KNOWN.get(name) or Metric(name=name)


def task_of_probe(probe: str, *, is_expensive: bool = False) -> str:
    """Return the name of a probe's task: ``lmsat_head``; with hyphens where ``lmsat_*`` is to leave it out."""
    return f"lmsat-{probe.replace('_', '-')}" if is_expensive else f"lmsat_{probe}"


def is_measurement(task: str) -> bool:
    """Return whether a task's values are measurements by a probe, and not scores of an ability."""
    return task.startswith("lmsat_") or (task.startswith("lmsat-") and name_in_lm_eval(task) not in _ABILITIES)


def probe_of_task(task: str) -> str:
    """Return the name of a measurement's probe; any other task's name as it is."""
    if task.startswith("lmsat_"):
        return task.removeprefix("lmsat_")
    return name_in_lm_eval(task) if is_measurement(task) else task


def name_in_lm_eval(task: str) -> str:
    """Return what a task of lmsat's whose name has hyphens is called in lm-eval; of a measurement its probe's name."""
    return task.removeprefix("lmsat-").removesuffix("-pythia").replace("-", "_")


def directions(*names: str) -> dict[str, bool]:
    """Return whether higher is better by name, for those of the metrics that have a better direction."""
    known = {name: metric(name).higher_is_better for name in names}
    return {name: higher for name, higher in known.items() if higher is not None}


def stated_direction(cell: object) -> bool | None:
    """Return what a table's cell states of whether higher is better, as text in a CSV; None where it states nothing."""
    return _DIRECTIONS.get(str(cell).strip().lower())


def axis_label(name: str) -> str:
    """Return the label of a metric's axis: its name, and its unit in brackets."""
    unit = metric(name).unit
    return f"{name} ({unit})" if unit and not metric(name).is_share else name
