"""``lmsat saturation``: whether a model gets worse late in training, since when, and how sure that is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.arguments import add_data, read_data
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.saturation_events import event_parts, events_data
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.checkpoint_names import parse_count

if TYPE_CHECKING:
    from lmsat_plugin.analysis.saturation import Saturation
    from lmsat_plugin.analysis.saturation.outlook import Forecast


_ONE_EACH = (
    "Judged is one metric of each task, a perplexity or else the first accuracy, and no part of a benchmark such as "
    "MMLU: --task '*' judges all."
)


class SaturationCommand(AnsweringCommand):
    """Decide for each model whether it saturates, plateaus or is still improving, or that this is unclear, and why.

    A model saturates if a rise near its end is more likely than checkpoint-to-checkpoint noise about a falling curve,
    and another sample of documents or questions would show it, too. It plateaus if its last fifth and the one before
    surely differ by less than a tolerance. The onset is a change point with its 90 % interval. Anisotropy and singular
    entropy are shown beside the verdict where results hold them: they have no part in it.

    Of results with several metrics it shows the events of each: turns and jumps beyond checkpoint-to-checkpoint noise,
    with 90 % intervals, p corrected for all tests of a run, in the order of time; and in how many runs each lies
    before, at the same time as, or after the onset of the loss. What comes first need not be the cause.

    With --forecast it says where each run is going: the chance that it saturates by --until, beside the base rate, and
    what training on gains. The last line says how good such forecasts of these runs would have been, in hindsight.
    """

    name = "saturation"
    help = "does a model get worse late in training, and since when"
    examples = (
        "lmsat saturation results/",
        "lmsat saturation losses.csv --figure saturation.png",
        "lmsat saturation results/ --forecast --until 143000",
        "lmsat saturation results/ --events events.svg",
    )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the data and the metric."""
        add_data(
            parser,
            "a folder with results of any lm-eval, or a CSV with the columns model, step, loss and, if known, tokens, "
            "stderr",
        )
        parser.add_argument(
            "--task", metavar="GLOB", help="by default lmsat_loss, or without it each task that is no part of another"
        )
        parser.add_argument("--metric", metavar="GLOB", help="by default loss, or one of each task")
        parser.add_argument(
            "--min-step",
            type=int,
            metavar="N",
            help="leave out checkpoints before this step, or these tokens or words where names state no steps "
            "(default: a hundredth of the last)",
        )
        parser.add_argument(
            "--tolerance",
            type=float,
            metavar="X",
            help="two stretches that differ by less count as equal: a difference of the metric, of logarithms for "
            "perplexities (default: twice the standard deviation of one checkpoint, noise and sample together)",
        )
        parser.add_argument(
            "--forecast",
            action="store_true",
            help="add the chance that each run ends above its least loss, what training on gains, and how good such "
            "forecasts were in hindsight",
        )
        parser.add_argument(
            "--until",
            metavar="STEP",
            help="with --forecast: where training ends, a step or, from 1B on, tokens (default: where the furthest run "
            "is, or twice as far for a run that is there)",
        )
        parser.add_argument(
            "--events",
            type=Path,
            metavar="FILE",
            help="draw the turns and jumps of every metric, a time line for each run, into a file, whose name ends in "
            ".png, .svg or .pdf",
        )

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the verdicts, and draw the events."""
        from lmsat_plugin.analysis.saturation import find_saturation
        from lmsat_plugin.analysis.saturation.events import find_events
        from lmsat_plugin.analysis.saturation.outlook import forecast_saturation
        from lmsat_plugin.analysis.saturation.replicates import sentences_on_runs
        from lmsat_plugin.analysis.saturation.several_metrics import has_several_metrics, names_of, summaries

        until = _until(args)
        if args.events is not None:
            from lmsat_plugin.figures.style import check_suffix

            check_suffix(args.events)
        given = read_data(args)
        results = find_saturation(given, args.task, args.metric, min_step=args.min_step, tolerance=args.tolerance)
        events = find_events(given, results)
        if args.events is not None:
            from lmsat_plugin.figures import plot, write_figure

            write_figure(plot(events), args.events)
        several = has_several_metrics(results)
        if args.forecast and several:
            raise LmsatError("--forecast is of one metric, and there are several: name one with --task T --metric M")
        sentences = [
            f"{name}: {result.verdict}: {result.reason}.{_geometry(result)}"
            for name, result in zip(names_of(results), results, strict=True)
            if not several or result.verdict in ("saturates", "diverged")
        ]
        if several:
            sentences += [f"{label}: {said}." for label, said in summaries(results).items()]
            if args.task is None and args.metric is None:
                sentences.append(_ONE_EACH)
        data = [result.to_dict() for result in results]
        if args.forecast:
            forecasts = forecast_saturation(results, until=until)
            data = [row | forecast.to_dict() for row, forecast in zip(data, forecasts, strict=True)]
            sentences += [said for forecast in forecasts for said in _forecast(forecast)]
            sentences += dict.fromkeys(forecast.skill.sentence() for forecast in forecasts)
        data = [row | own for row, own in zip(data, events_data(results, events), strict=True)]
        parts = [_table(results), *sentences, *event_parts(events), *sentences_on_runs(results)]
        return Answer(data=data, parts=parts, result=results)


def _until(args: argparse.Namespace) -> int | None:
    """Return where training ends; None by default."""
    if args.until is None:
        return None
    if not args.forecast:
        raise LmsatError("--until says until when to forecast: add --forecast")
    until = parse_count(args.until)
    if not until:
        raise LmsatError(
            f"--until {args.until} is no place at which training ends: give a step, or tokens such as 300B"
        )
    return until


def _forecast(forecast: Forecast) -> Iterator[str]:
    """Yield the sentences on where a run is going."""
    yield forecast.sentence()
    if forecast.p_saturates is not None and forecast.precedents:
        known = [one.sentence() for one in forecast.precedents if one.here_at is not None or one.before_onset]
        if known:
            yield f"{forecast.name}: {'; '.join(known)}."


def _table(results: Sequence[Saturation]) -> TextTable:
    first = results[0]
    several = len({(result.task, result.metric) for result in results}) > 1
    columns: dict[str, list[Any]] = {
        "task": [result.task for result in results],
        "metric": [result.metric for result in results],
        "model": [result.model for result in results],
        "variant": [result.variant for result in results],
        "stage": [result.stage for result in results],
        "run": [result.run for result in results],
        "corpus": [result.corpus for result in results],
        "n-shot": [result.num_fewshot for result in results],
        "filter": [result.filter for result in results],
        "verdict": [result.verdict for result in results],
        "best": [result.best for result in results],
        "at step": [result.best_step for result in results],
        "at": [result.place(result.best_at) for result in results],
        "final": [result.final for result in results],
        "onset": [None if result.onset_at is None else _onset(result, result.onset_at) for result in results],
        "90 % interval": [
            None if result.onset_low is None or result.onset_high is None else _interval(result) for result in results
        ],
        "p": [result.p_value for result in results],
        "corrected p": [result.corrected_p_value for result in results],
    }
    by_step = all(result.axis == "step" for result in results)
    del columns["at" if by_step else "at step"]
    for name in ("task", "metric", "variant", "stage", "run", "corpus", "n-shot", "filter", "corrected p"):
        if len(set(columns[name])) == 1:
            del columns[name]
    title = "scores" if several else " ".join(filter(None, (first.task, first.metric)))
    return TextTable.of_columns(title, columns)


def _onset(result: Saturation, at: int) -> int | str:
    return at if result.axis == "step" else result.place(at)


def _interval(result: Saturation) -> str:
    low, high = result.onset_low, result.onset_high
    assert low is not None
    assert high is not None
    return f"{low:,} to {high:,}" if result.axis == "step" else f"{result.place(low)} to {result.place(high)}"


def _geometry(result: Saturation) -> str:
    geometry = result.geometry
    if geometry is None:
        return ""
    events = {
        "the last layer's anisotropy": {
            "rises most steeply up to step {:,}": geometry.anisotropy_jump_step,
            "stays above 0.5 from step {:,} on": geometry.anisotropy_above_half_step,
        },
        "the head's singular entropy": {
            "is least at step {:,}": geometry.entropy_turn_step,
            "rises most steeply up to step {:,}": geometry.entropy_spike_step,
        },
    }
    sentences = []
    for subject, steps in events.items():
        if known := [words.format(step) for words, step in steps.items() if step is not None]:
            sentences.append(f"{subject} {' and '.join(known)}")
    return f" Meanwhile {', and '.join(sentences)}." if sentences else ""
