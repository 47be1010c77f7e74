"""Which benchmark tells models apart: its noise from checkpoint to checkpoint, the models' spread (`find_noise`).

Shapes: K checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.benchmark_scores import Benchmark, benchmarks_of
from lmsat_plugin.analysis.given_numbers import check_number, check_whole
from lmsat_plugin.analysis.model_sizes import SizeGroup, recipes_of, size_groups
from lmsat_plugin.analysis.question_errors import QuestionErrors, question_errors
from lmsat_plugin.analysis.stats.differences import smallest_detectable
from lmsat_plugin.metrics import metric as metric_named
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

LEAST_CHECKPOINTS, MOST_CHECKPOINTS = 5, 30
"""How many last checkpoints show a run's noise: Heineman et al. 2025 take 5 of small models, and 30 of large ones."""
END = 0.2
"""The share of a run that is its end, as far as it has that many checkpoints."""
_BEGIN = 0.5
"""The share of a run before which no checkpoint shows the noise of its end: the scores still rise along a curve."""
_ROUNDING, _LEAST_DIFFERENCE = 1e-12, 1e-9
LEAST_SNR = smallest_detectable(float(np.sqrt(2)))
"""The signal over the noise at which the best and the worst model are told apart by one checkpoint each, at 80 % power:
(1.96 + 0.84) √2 = 3.96."""
DIFFERENCE = 0.02
"""The difference of two shares for which the number of questions is given, unless another is asked for."""


@dataclass(frozen=True, kw_only=True)
class ModelEnd:
    """One model at its end: the mean over its runs of each run's last checkpoints."""

    model: str
    score: float
    noise: float | None
    """The standard deviation of its last checkpoints about a line; None where there are too few."""
    n_runs: int
    n_checkpoints: int
    """How many last checkpoints of each run count, at least."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkNoise:
    """Signal and noise of one benchmark among models of one size, and what its questions can tell."""

    task: str
    metric: str
    variant: str | None
    """The number of shots, the filter and the corpus, where the task has several; else None."""
    size: str | None
    """The models' size; of models of different sizes the least and the greatest; None where unknown."""
    several_sizes: bool
    """Whether the models have different sizes, for no two have the same: the signal is then that between sizes."""
    models: tuple[ModelEnd, ...]
    noise: float | None = None
    """The standard deviation of a checkpoint's score about a line through the last ones of its run, over all runs."""
    signal: float | None = None
    """The greatest difference between the models' scores at their end."""
    relative_noise: float | None = None
    relative_signal: float | None = None
    """Both over the mean of the models' scores at their end."""
    snr: float | None = None
    """signal / noise."""
    decision_accuracy: float | None = None
    """The share of pairs of recipes in the same order at this size and at ``decision_size``."""
    decision_size: str | None = None
    decision_pairs: int | None = None
    n_questions: int | None = None
    stderr: float | None = None
    design_effect: float | None = None
    mde: float | None = None
    paired: bool = False
    """For these five see `QuestionErrors`."""
    difference: float | None = None
    """The difference that ``questions_needed`` find."""
    questions_needed: int | None = None
    seed_std: float | None = None
    """The standard deviation between runs of one model, without what the noise of their checkpoints adds."""
    seed_share: float | None = None
    """seed_std² / (seed_std² + noise²)."""
    worth_running: bool | None = None
    """Whether the models can be told apart: snr ≥ 3.96, and signal ≥ mde where that is known."""
    verdict: str
    """The reason in words."""
    reasons: Mapping[str, str]
    """Why what is None is unknown, by its name."""

    @property
    def is_too_noisy(self) -> bool:
        """Whether the best and the worst model are not told apart for the noise between checkpoints."""
        return self.snr is not None and self.snr < LEAST_SNR

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat noise --json`` prints it."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        return data | {"models": [asdict(one) for one in self.models], "reasons": dict(self.reasons)}


def find_noise(
    data: Results | pd.DataFrame,
    *,
    model: str = "*",
    task: str = "*",
    metric: str = "*",
    last: int | None = None,
    difference: float | None = None,
) -> list[BenchmarkNoise]:
    """Return signal and noise of each benchmark at each size (Heineman et al. 2025, arXiv:2508.13144).

    Their noise is the standard deviation of a model's last n checkpoints, and their signal the greatest difference
    between models, max |x_i − x_j|, both over the mean score. Here a line through the checkpoints is taken off first,
    for scores may still rise: noise² = Σ r² / Σ (n − 2) over the runs of a size. x_i is the mean of a model's last n
    checkpoints, or its last score where a run has too few.

    Args:
        data: As for `benchmarks_of`. Models of one ``size`` (a column, else ``n_params``, else the name) are compared.
        model, task, metric: Globs.
        last: How many checkpoints are a run's last ones, 3 or more; by default those in its last fifth, at least 5 and
            at most 30. They may not begin before the run's half.
        difference: Between two models, for which to give the number of questions; by default 0.02 of shares.

    Raises:
        LmsatError: As `benchmarks_of`, and for arguments that are out of range.
    """
    if last is not None:
        check_whole("last", last, "a line takes 3 checkpoints or more", least=3)
    if difference is not None:
        check_number("difference", difference, "give one above 0", least=_LEAST_DIFFERENCE)
    return [
        one
        for benchmark in benchmarks_of(data, model=model, task=task, metric=metric)
        for one in _of_benchmark(benchmark, data, last, difference)
    ]


@dataclass(frozen=True, eq=False)
class _RunEnd:
    """The last checkpoints of one run."""

    group: str
    score: float
    """Their mean, or the last score where they are too few."""
    n_checkpoints: int
    squares: float
    """Σ r² about a line; 0 for too few."""
    freedom: int
    """n − 2; 0 for too few."""
    reason: str | None


def _of_benchmark(
    benchmark: Benchmark, data: Results | pd.DataFrame, last: int | None, difference: float | None
) -> Iterator[BenchmarkNoise]:
    rows = benchmark.rows
    runs = [_run_end(own, last) for _, own in rows.groupby("model", sort=False)]
    final = rows.groupby("model", sort=False).tail(1)
    ends = _ends(runs)
    sizes = size_groups(final)
    recipes = recipes_of(final)
    if difference is None and metric_named(benchmark.metric).is_share:
        difference = DIFFERENCE
    for place, size in enumerate(sizes):
        own = [one for one in runs if one.group in size.models]
        questions = question_errors(benchmark, final[final.group.isin(size.models)], data)
        found = _signal_and_noise(benchmark, size, own, questions=questions, difference=difference)
        yield _judged(_with_decisions(found, sizes[place:], ends, recipes))


def _run_end(rows: pd.DataFrame, last: int | None) -> _RunEnd:
    at_K, scores_K, group = rows["at"].to_numpy(), rows.score.to_numpy(), str(rows.group.iloc[0])
    least = LEAST_CHECKPOINTS if last is None else last
    number = last or min(max(int((at_K >= (1 - END) * at_K[-1]).sum()), LEAST_CHECKPOINTS), MOST_CHECKPOINTS)
    reason = None
    if len(at_K) < least:
        reason = f"runs have fewer than {least} checkpoints"
    elif at_K[-number] < _BEGIN * at_K[-1]:
        reason = f"the last {number} checkpoints of a run begin before its half"
    if reason is not None:
        return _RunEnd(group, float(scores_K[-1]), 1, squares=0.0, freedom=0, reason=reason)
    at_K, scores_K = at_K[-number:] - at_K[-number:].mean(), scores_K[-number:]
    mean = float(scores_K.mean())
    residuals_K = scores_K - mean - at_K * (at_K @ scores_K) / (at_K @ at_K)
    # What rounding leaves of scores on a line is no noise.
    is_line = np.abs(residuals_K).max() <= _ROUNDING * np.abs(scores_K).max()
    squares = 0.0 if is_line else float((residuals_K**2).sum())
    return _RunEnd(group, mean, number, squares=squares, freedom=number - 2, reason=None)


def _ends(runs: Sequence[_RunEnd]) -> dict[str, ModelEnd]:
    """Return each model at its end, by its name."""
    groups: dict[str, list[_RunEnd]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    return {
        name: ModelEnd(
            model=name,
            score=float(np.mean([run.score for run in own])),
            noise=_pooled(own),
            n_runs=len(own),
            n_checkpoints=min(run.n_checkpoints for run in own),
        )
        for name, own in groups.items()
    }


def _pooled(runs: Sequence[_RunEnd]) -> float | None:
    freedom = sum(run.freedom for run in runs)
    return float(np.sqrt(sum(run.squares for run in runs) / freedom)) if freedom else None


def _signal_and_noise(
    benchmark: Benchmark,
    size: SizeGroup,
    runs: Sequence[_RunEnd],
    *,
    questions: QuestionErrors,
    difference: float | None,
) -> BenchmarkNoise:
    reasons = dict(questions.reasons)
    models = tuple(_ends(runs).values())
    scores = np.array([one.score for one in models])
    noise, signal, snr = _pooled(runs), None, None
    if noise is None:
        reasons["noise"] = next(run.reason for run in runs if run.reason)
    if len(models) > 1:
        signal = float(np.ptp(scores))
    else:
        reasons["signal"] = "there is one model of this size" if size.label else "there is one model"
    mean = float(abs(scores.mean()))
    for name in ("noise", "signal"):
        if name in reasons or mean == 0:
            reasons[f"relative_{name}"] = reasons.get(name, "the mean score is 0")
    if noise is not None and signal is not None and noise > 0:
        snr = signal / noise
    else:
        reasons["snr"] = reasons.get("noise") or reasons.get("signal") or "the last scores lie on a line"
    needed = None if difference is None else questions.questions_for(difference)
    if needed is None:
        reasons["questions_needed"] = (
            "name a difference" if difference is None else reasons.get("mde") or reasons["n_questions"]
        )
    seed_std, seed_share, reason = _between_runs(runs, noise)
    if reason is not None:
        reasons["seed_share"] = reasons["seed_std"] = reason
    return BenchmarkNoise(
        task=benchmark.task,
        metric=benchmark.metric,
        variant=benchmark.variant,
        size=size.label,
        several_sizes=size.several,
        models=models,
        noise=noise,
        signal=signal,
        relative_noise=noise / mean if noise is not None and mean else None,
        relative_signal=signal / mean if signal is not None and mean else None,
        snr=snr,
        **{item.name: getattr(questions, item.name) for item in fields(questions) if item.name != "reasons"},
        difference=difference,
        questions_needed=needed,
        seed_std=seed_std,
        seed_share=seed_share,
        verdict="",
        reasons=reasons,
    )


def _between_runs(runs: Sequence[_RunEnd], noise: float | None) -> tuple[float, float, None] | tuple[None, None, str]:
    """Return the standard deviation between runs of one model, and its share of the variance; or why it is unknown.

    The variance of the means of n checkpoints is that between runs and noise² / n (one-way random effects).
    """
    groups: dict[str, list[_RunEnd]] = {}
    for run in runs:
        if run.freedom:
            groups.setdefault(run.group, []).append(run)
    several = [own for own in groups.values() if len(own) > 1]
    if noise is None or not several:
        return None, None, "no model has several runs" if noise is not None else "the noise is unknown"
    squares = sum(len(own) * float(np.var([run.score for run in own])) for own in several)
    variance = squares / sum(len(own) - 1 for own in several)
    by_noise = noise**2 * float(np.mean([1 / run.n_checkpoints for own in several for run in own]))
    between = max(variance - by_noise, 0.0)
    if between + noise**2 == 0:
        return None, None, "all runs have the same scores"
    return float(np.sqrt(between)), between / (between + noise**2), None


def _with_decisions(
    found: BenchmarkNoise, sizes: Sequence[SizeGroup], ends: Mapping[str, ModelEnd], recipes: Mapping[str, str]
) -> BenchmarkNoise:
    """Return the result with the share of pairs of recipes ranked alike at the greatest size that has two of them.

    ``sizes`` are that of the result and all larger ones.
    """
    own, *larger = sizes
    for target in reversed(larger):
        small, large = (
            {recipes[name]: ends[name].score for name in size.models if name in recipes} for size in (own, target)
        )
        common = [name for name in small if name in large]
        if len(common) > 1 and own.number is not None and target.number is not None:
            alike = [
                np.sign(small[first] - small[second]) == np.sign(large[first] - large[second])
                for first, second in combinations(common, 2)
            ]
            return replace(
                found, decision_accuracy=float(np.mean(alike)), decision_size=target.label, decision_pairs=len(alike)
            )
    reason = "no larger size has two of these recipes"
    return replace(found, reasons={**found.reasons, **dict.fromkeys(_DECISIONS, reason)})


_DECISIONS = ("decision_accuracy", "decision_size", "decision_pairs")


def _judged(found: BenchmarkNoise) -> BenchmarkNoise:
    """Return the result with its verdict."""
    if found.snr is None or found.signal is None:
        reason = found.reasons["snr"]
        return replace(found, verdict=reason, reasons={**found.reasons, "worth_running": reason})
    among = "sizes" if found.several_sizes else "models"
    said = f"the {among} differ by {found.snr:.1f} times the noise"
    if found.is_too_noisy:
        return replace(found, worth_running=False, verdict=said)
    if found.mde is None:
        return replace(found, worth_running=True, verdict=f"{said}; the error by question is unknown")
    if found.signal < found.mde:
        return replace(
            found,
            worth_running=False,
            verdict=f"{said}, but by {found.signal:.3g}, where these questions show {found.mde:.3g}",
        )
    return replace(found, worth_running=True, verdict=f"{said}, and by more than these questions need")
