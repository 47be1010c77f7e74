"""How surely a benchmark's questions tell models apart: standard errors, design effect, smallest detectable difference.

Shapes: M questions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.analysis.benchmark_scores import Benchmark
from lmsat_plugin.analysis.stats.differences import clustered_stderr, smallest_detectable
from lmsat_plugin.metrics import is_measurement
from lmsat_plugin.metrics import metric as metric_named
from lmsat_plugin.results.question_scores import SamplesError, read_questions
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

LEAST_QUESTIONS = 10
_MOST = 1e15
"""Numbers of questions and standard errors above it are none."""
_WHOLE = 1e-3
"""How far from a whole number a number of questions may lie that follows from a standard error."""


@dataclass(frozen=True, kw_only=True)
class QuestionErrors:
    """What the questions of one benchmark can tell of models; None for what is unknown."""

    n_questions: int | None = None
    """The least number that one of the models was asked."""
    stderr: float | None = None
    """Of one model's score, over samples of questions: the root of the mean square over the models."""
    design_effect: float | None = None
    """By how much shared passages raise the variance; None unless the questions' scores were kept."""
    mde: float | None = None
    """The smallest difference of two models that is found at 80 % power with these questions."""
    paired: bool = False
    """Whether ``mde`` is of differences by question; else of two independent samples of questions, which is more."""
    reasons: Mapping[str, str]
    """Why what is None is unknown, by its name."""

    def questions_for(self, difference: float) -> int | None:
        """Return how many questions find a difference at 80 % power: n (mde / difference)²; None if unknown."""
        if self.mde is None or self.n_questions is None:
            return None
        return max(LEAST_QUESTIONS, int(np.ceil(self.n_questions * (self.mde / difference) ** 2 * (1 - 1e-12))))


def question_errors(benchmark: Benchmark, last: pd.DataFrame, data: Results | pd.DataFrame) -> QuestionErrors:
    """Return what the questions can tell of the models in some rows of a benchmark, one of each series.

    Where results keep the questions' scores of all rows, errors are clustered by passage, and differences are taken by
    question where all models were asked the same. Else errors are those of the table, or √(p (1 − p) / (n − 1)) of
    shares of right answers.
    """
    kept = _kept(benchmark, last, data)
    counts = _counts(benchmark, last) if kept is None else np.array([len(one.scores_M) for one in kept])
    number = None if counts is None else int(counts.min())
    if number is not None and number < LEAST_QUESTIONS:
        reason = f"{number} questions are fewer than {LEAST_QUESTIONS}"
        return QuestionErrors(n_questions=number, reasons=dict.fromkeys(("stderr", "design_effect", "mde"), reason))
    reasons = {} if number is not None else {"n_questions": "the results do not state the number of questions"}
    if kept is not None:
        simple, clustered = (
            float(np.mean([clustered_stderr(one.scores_M, clusters) ** 2 for one, clusters in pairs]))
            for pairs in ([(one, None) for one in kept], [(one, one.clusters_M) for one in kept])
        )
        if simple == 0:
            return _without_errors(number, reasons, "all questions have the same score")
        paired = _paired(kept, last)
        if not np.isfinite(clustered):
            return _without_errors(number, reasons, "all questions share one passage")
        return QuestionErrors(
            n_questions=number,
            stderr=float(np.sqrt(clustered)),
            design_effect=clustered / simple,
            mde=smallest_detectable(np.sqrt(2 * clustered) if paired is None else paired),
            paired=paired is not None,
            reasons=reasons,
        )
    reasons["design_effect"] = (
        "documents share no passages"
        if is_measurement(benchmark.task)
        else "the scores of single questions were not kept: measure with --log_samples"
    )
    stderrs = _stderrs(benchmark, last, counts)
    if stderrs is None:
        return _without_errors(number, reasons, "the results state no standard errors")
    stderr = float(np.sqrt((stderrs**2).mean()))
    return QuestionErrors(
        n_questions=number, stderr=stderr, mde=smallest_detectable(np.sqrt(2) * stderr), reasons=reasons
    )


def _without_errors(number: int | None, reasons: Mapping[str, str], reason: str) -> QuestionErrors:
    return QuestionErrors(
        n_questions=number, reasons={**dict.fromkeys(("stderr", "design_effect", "mde"), reason), **reasons}
    )


@dataclass(frozen=True, eq=False)
class _Kept:
    """The scores of the questions that one model was asked, in the order of the questions' names."""

    names: tuple[str, ...]
    scores_M: np.ndarray
    clusters_M: np.ndarray | None


def _kept(benchmark: Benchmark, last: pd.DataFrame, data: Results | pd.DataFrame) -> list[_Kept] | None:
    """Return the questions of each row; None unless results keep those of all rows."""
    if not isinstance(data, Results) or "path" not in last.columns:
        return None
    found = []
    for path, name in zip(last.path, last.get("filter", ["none"] * len(last)), strict=True):
        try:
            of_filters = read_questions(data.files[str(path)], benchmark.task)
        except SamplesError as error:
            logger.warning("%s: %s", benchmark.name, error)
            return None
        questions = of_filters.get(name if isinstance(name, str) else "none")
        scores_M = None if questions is None else questions.scores.get(benchmark.metric)
        if questions is None or scores_M is None or scores_M.ndim != 1 or not np.isfinite(scores_M).all():
            return None
        order = np.argsort(np.array(questions.keys))
        passages = questions.passages
        found.append(
            _Kept(
                names=tuple(questions.keys[index] for index in order),
                scores_M=scores_M[order],
                clusters_M=None if passages is None else np.array(passages)[order],
            )
        )
    return found


def _paired(kept: list[_Kept], last: pd.DataFrame) -> float | None:
    """Return the root mean square of the standard errors of differences by question between models.

    None unless all were asked the same questions and there are two models.
    """
    if len({one.names for one in kept}) > 1:
        return None
    variances = [
        clustered_stderr(first.scores_M - second.scores_M, first.clusters_M) ** 2
        for (first, own), (second, other) in combinations(zip(kept, last.group, strict=True), 2)
        if own != other
    ]
    return float(np.sqrt(np.mean(variances))) if variances and max(variances) > 0 else None


def _counts(benchmark: Benchmark, last: pd.DataFrame) -> np.ndarray | None:
    """Return the number of questions of each row: as stated, else the n of a share p whose error² is p (1 − p)/(n − 1).

    None where neither gives whole numbers.
    """
    if "n_samples" in last.columns and last.n_samples.between(1, _MOST).all():
        return last.n_samples.to_numpy(np.float64)
    if "stderr" not in last.columns or metric_named(benchmark.metric).unit != "proportion":
        return None
    shares, stderrs = last.score.to_numpy(), last.stderr.to_numpy(np.float64)
    if not ((stderrs > 0) & (shares > 0) & (shares < 1)).all():
        return None
    counts = shares * (1 - shares) / stderrs**2 + 1
    is_whole = (np.abs(counts - np.round(counts)) < _WHOLE) & (counts < _MOST)
    return np.round(counts) if is_whole.all() else None


def _stderrs(benchmark: Benchmark, last: pd.DataFrame, counts: np.ndarray | None) -> np.ndarray | None:
    if "stderr" in last.columns and (last.stderr.gt(0) & last.stderr.lt(_MOST)).all():
        return last.stderr.to_numpy(np.float64)
    shares = last.score.to_numpy()
    if counts is None or metric_named(benchmark.metric).unit != "proportion" or not ((shares > 0) & (shares < 1)).all():
        return None
    return np.sqrt(shares * (1 - shares) / (counts - 1))
