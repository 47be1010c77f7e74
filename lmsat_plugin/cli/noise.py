"""``lmsat noise``: which benchmark can tell models apart."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.arguments import add_data, read_data
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.results.variants import label

if TYPE_CHECKING:
    from lmsat_plugin.analysis.benchmark_noise import BenchmarkNoise

_ANSWERS = {True: "yes", False: "no", None: "unknown"}
_MOST_NAMED = 12


class NoiseCommand(AnsweringCommand):
    """Find which benchmarks can tell models of one size apart (Heineman et al. 2025, Miller 2024).

    noise     the standard deviation of a score from checkpoint to checkpoint at the end of a run, about a line
    signal    the greatest difference between the models' scores at their end
    snr       signal / noise: from 4.0 on one checkpoint each tells the best model from the worst, at 80 % power
    decision  the share of pairs of recipes that stand in the same order at this size and at the largest
    mde       the smallest difference of two models that these questions show, at 80 % power
    seeds     the share of the variance that is between runs of one model

    A benchmark is worth running at a size if its snr is 4.0 or more, and its signal at least the mde where that is
    known. What the data do not show is empty, or null in JSON, with the reason.
    """

    name = "noise"
    help = "which benchmark can tell models apart"
    examples = (
        "lmsat noise results/",
        "lmsat noise scores.csv --task 'arc_*' --metric acc --difference 0.01",
        "lmsat noise results/ --figure noise.png",
    )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the data, and which models, tasks and metrics to take."""
        add_data(
            parser,
            "a folder with result files, one file, or a CSV with the columns model, step, task, metric, score and, if "
            "known, size, recipe, run, stderr or n_samples",
            ("model", "run", "task", "metric"),
        )
        parser.add_argument(
            "--last",
            type=int,
            metavar="N",
            help="how many checkpoints are the end of a run (default: those in its last fifth, 5 to 30)",
        )
        parser.add_argument(
            "--difference",
            type=float,
            metavar="X",
            help="say how many questions show a difference of X between two models (default: 0.02 of shares)",
        )

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return signal and noise of each benchmark."""
        from lmsat_plugin.analysis.benchmark_noise import find_noise

        results = find_noise(read_data(args), last=args.last, difference=args.difference)
        data = [result.to_dict() for result in results]
        return Answer(data=data, parts=[_table(results), *_sentences(results)], result=results)


def _table(results: Sequence[BenchmarkNoise]) -> TextTable:
    needed = f"for {_difference(results)}"
    columns: dict[str, list[Any]] = {
        "task": [label(one.task, one.variant) for one in results],
        "metric": [one.metric for one in results],
        "size": [one.size for one in results],
        "models": [len(one.models) for one in results],
        "noise": [_number(one.noise) for one in results],
        "signal": [_number(one.signal) for one in results],
        "snr": [None if one.snr is None else f"{one.snr:.1f}" for one in results],
        "decision %": [_percent(one.decision_accuracy) for one in results],
        "questions": [one.n_questions for one in results],
        "±": [_number(one.stderr) for one in results],
        "design effect": [None if one.design_effect is None else f"{one.design_effect:.2f}" for one in results],
        "mde": [_number(one.mde) for one in results],
        needed: [one.questions_needed for one in results],
        "seeds %": [_percent(one.seed_share) for one in results],
        "worth running": [_ANSWERS[one.worth_running] for one in results],
    }
    for name in ("decision %", "design effect", "seeds %", "size", needed):
        if set(columns[name]) == {None}:
            del columns[name]
    return TextTable.of_columns("Signal and noise at the end of training", columns)


def _difference(results: Sequence[BenchmarkNoise]) -> str:
    """Return the difference that the numbers of questions are for, in words."""
    several = {one.difference for one in results} - {None}
    return f"{several.pop():g}" if len(several) == 1 else "the difference"


def _sentences(results: Sequence[BenchmarkNoise]) -> Iterator[str]:
    for size in dict.fromkeys(one.size for one in results):
        own = [one for one in results if one.size == size]
        at = f" at {size}" if size else ""
        if own[0].several_sizes:
            yield f"No two models have one size: the signal is that between sizes{f', {size}' if size else ''}."
        judged = sorted((one for one in own if one.worth_running is not None), key=lambda one: -(one.snr or 0))
        told = {
            f"Worth running{at}": [one for one in judged if one.worth_running],
            f"Too noisy{at}": [one for one in judged if one.is_too_noisy],
            f"Too few questions{at}": [one for one in judged if not one.worth_running and not one.is_too_noisy],
        }
        for words, named in told.items():
            if named:
                yield f"{words}: {_listed([f'{_name(one)} (snr {one.snr:.1f})' for one in named])}."
    enough = [one for one in results if one.questions_needed is not None and one.n_questions is not None]
    for difference in dict.fromkeys(one.difference for one in enough):
        own = [one for one in enough if one.difference == difference]
        names = list(dict.fromkeys(_name(one) for one in own if (one.questions_needed or 0) <= (one.n_questions or 0)))
        said = f"are enough for {_listed(names)}" if names else "are enough for no task"
        paired = "" if any(one.paired for one in own) else ", taken as two samples (kept by question, fewer suffice)"
        yield f"To show a difference of {difference:g} at 80 % power{paired}, the questions {said}."
    yield from _unknown(results)


def _unknown(results: Sequence[BenchmarkNoise]) -> Iterator[str]:
    """Yield why columns are empty, each reason once."""
    shown = {
        "noise": "noise",
        "signal": "signal",
        "decision_accuracy": "decision accuracy",
        "mde": "mde",
        "design_effect": "design effect",
        "seed_share": "share of seeds",
    }
    for key, words in shown.items():
        counts: dict[str, int] = {}
        for one in results:
            if key in one.reasons:
                counts[one.reasons[key]] = counts.get(one.reasons[key], 0) + 1
        for reason, count in counts.items():
            of = "" if count == len(results) else f" of {count} of {len(results)} rows"
            yield f"No {words}{of}: {reason}."


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _name(one: BenchmarkNoise) -> str:
    return label(f"{one.task} {one.metric}", one.variant)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.0f}"
