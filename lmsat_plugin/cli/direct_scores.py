"""The answer of ``lmsat fit direct``: scores as a power law of compute, beside the predictions in two steps."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.arguments import read_data
from lmsat_plugin.cli.tables import TextTable, signed_percent, three_decimals
from lmsat_plugin.results.variants import label

if TYPE_CHECKING:
    from lmsat_plugin.analysis.emergence.direct_scores import DirectFit, DirectScore


def direct_answer(args: argparse.Namespace) -> Answer:
    """Return the laws of each benchmark, and the predicted scores."""
    from lmsat_plugin.analysis.emergence import fit_direct

    fitted, targets = (
        [name.strip() for name in (text or "").split(",") if name.strip()]
        for text in (args.fit_models, args.predict_model)
    )
    results = fit_direct(
        read_data(args),
        fitted,
        targets,
        at=args.at,
        loss=args.loss or "loss",
        task=args.task or "*",
        metric=args.metric or "*",
        repetitions=args.repetitions,
    )
    parts: list[TextTable | str] = [_laws(results)]
    if any(one.predictions for one in results):
        parts.append(_predictions(results))
    return Answer(data=[one.to_dict() for one in results], parts=[*parts, *_sentences(results)], result=results)


def _laws(results: Sequence[DirectFit]) -> TextTable:
    rows = []
    for one in results:
        for law in one.laws:
            data = law.to_dict()
            params = ", ".join(
                f"{name} = {param['value']:.4g}" + _ends(param["low"], param["high"], "{:.3g}", " ({} to {})")
                for name, param in data["params"].items()
            )
            gap = data["held_out"]
            rows.append([
                *(label(one.task, one.variant), one.metric, data["formula"], _ratio(law.ratio), data["n_points"]),
                *(params, f"{data['residual_rms']:.3g}", gap and f"{100 * gap['mean_absolute_gap']:.1f}"),
            ])  # fmt: skip
    columns = [
        "task",
        "metric",
        "law",
        "tokens per parameter",
        "runs",
        "constants (90 %)",
        "rms",
        "held-out gap of -ln Q %",
    ]
    return TextTable("Scores as a power law of compute, Q = (score - chance) / (1 - chance)", columns, rows)


def _predictions(results: Sequence[DirectFit]) -> TextTable:
    pairs = [(one, score) for one in results for score in one.predictions]
    columns: dict[str, list[Any]] = {
        "task": [label(one.task, one.variant) for one, _ in pairs],
        "metric": [one.metric for one, _ in pairs],
        "model": [score.model for _, score in pairs],
        "FLOP": [f"{score.flops:.3g}" for _, score in pairs],
        "tokens per parameter": [_ratio(score.ratio) for _, score in pairs],
        "predicted": [three_decimals(score.predicted) for _, score in pairs],
        "90 % of new runs": [_ends(score.low, score.high) or None for _, score in pairs],
        "observed": [three_decimals(score.observed) for _, score in pairs],
        "error %": [signed_percent(score.relative_error) for _, score in pairs],
    }
    two = [score.two_step for _, score in pairs]
    if any(two):
        chained = [one and one.chained for one in two]
        columns |= {
            "two steps": [one and three_decimals(one.predicted) for one in two],
            "its error %": [one and signed_percent(one.relative_error) for one in two],
            "two steps, from size and tokens": [one and three_decimals(one.predicted) for one in chained],
            "error of these %": [one and signed_percent(one.relative_error) for one in chained],
        }
    for name in ("model", "observed", "error %", "90 % of new runs", "tokens per parameter"):
        if set(columns[name]) == {None}:
            del columns[name]
    return TextTable.of_columns("Scores predicted", columns)


def _errors(score: DirectScore) -> dict[str, float | None]:
    """Return the relative error of each way to predict a score."""
    two = score.two_step
    chained = None if two is None else two.chained
    return {
        "directly": score.relative_error,
        "in two steps from its own loss": None if two is None else two.relative_error,
        "in two steps from size and tokens": None if chained is None else chained.relative_error,
    }


def _sentences(results: Sequence[DirectFit]) -> Iterator[str]:
    scores = [score for one in results for score in one.predictions if score.relative_error is not None]
    for model in dict.fromkeys(score.model for score in scores):
        own = [score for score in scores if score.model == model]
        said = []
        for words in _errors(own[0]):
            errors = [abs(error) for score in own if (error := _errors(score)[words]) is not None]
            if len(errors) == len(own):
                said.append(f"{100 * sum(errors) / len(errors):.1f} % {words}")
        yield f"Mean size of the relative error of {model}: {', '.join(said)}."
    if reason := next((one.two_step_reason for one in results if one.two_step_reason), None):
        yield f"No prediction in two steps: {reason}."
    for one in results:
        name = label(f"{one.task}, {one.metric}", one.variant)
        if one.reason:
            yield f"{name}: no law: {one.reason}."
        if one.chance is None:
            yield f"{name}: chance is unknown, and taken for 0: a column chance states it."
        if one.at_chance:
            yield f"{name}: not clearly above chance, and not fitted: {', '.join(one.at_chance)}."
        for score in one.predictions:
            if score.predicted is None:
                yield f"{name}, {score.model}: {score.reason}."
        for warning in dict.fromkeys(text for law in one.laws for text in law.fitted.warnings):
            yield f"warning: {name}: {warning}"


def _ratio(ratio: float | None) -> str | None:
    return None if ratio is None else f"{ratio:.3g}"


def _ends(low: float | None, high: float | None, number: str = "{:.3f}", both: str = "{} to {}") -> str:
    return "" if low is None or high is None else both.format(number.format(low), number.format(high))
