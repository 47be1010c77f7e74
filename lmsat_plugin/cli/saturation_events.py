"""What ``lmsat saturation`` says of the events of every metric: on one time line, and in which order over all runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.tables import TextTable

if TYPE_CHECKING:
    from lmsat_plugin.analysis.saturation import Saturation
    from lmsat_plugin.analysis.saturation.events import Events, RunEvents

_MOST_SHOWN = 60
"""Events in the table for people; with more, only those of runs with an onset are shown, or none."""


def events_data(results: Sequence[Saturation], events: Events) -> Iterator[dict[str, Any]]:
    """Yield what JSON has of the events of each verdict's run; null where none were looked for."""
    from lmsat_plugin.analysis.saturation.several_metrics import names_of

    by_run = {run.name: run for run in events.runs}
    order = {one.key: one for one in events.order}
    for name in names_of(results):
        run = by_run.get(name)
        if run is None:
            yield {"events": None, "events_tested": None}
            continue
        rows = []
        for event in run.events:
            rows.append(
                {**asdict(event), "beside_onset": run.beside_onset(event), "over_runs": order[event.key].counts()}
            )
        yield {"events": rows, "events_tested": {"metrics": run.metrics, "tests": run.tests}}


def event_parts(events: Events) -> Iterator[TextTable | str]:
    """Yield the tables of events and of their order, and what was tested."""
    runs = [run for run in events.runs if run.tests]
    if not any(run.events for run in runs):
        # Of the loss alone nobody asks what happens when.
        if any(run.metrics > 1 for run in runs):
            yield _said(runs)
        return
    shown = _shown(runs)
    several = len(runs) > 1
    if rows := [row for run in shown for row in _time_line(run)]:
        columns = ["run", "task", "metric", "event", "at", "90 % interval", "corrected p"]
        yield _table("Events, in the order of time", columns, rows, drop="" if several else "run")
    if left := sum(len(run.events) for run in runs if run not in shown):
        yield f"{left} events of {len(runs) - len(shown)} other runs are not shown: --json and --events FILE have them."
    if order := [one for one in events.order if one.with_onset]:
        columns = ["task", "metric", "event", "before", "same time", "after", "of runs with both", "without onset"]
        rows = [
            [
                *(one.task, one.metric, one.kind, one.before, one.same_time, one.after, one.with_onset),
                f"{one.without_onset} of {one.judged_without_onset}",
            ]
            for one in order
        ]
        yield TextTable("In how many runs an event lies before, at the same time as, or after the onset", columns, rows)
    yield _said(runs)


def _shown(runs: Sequence[RunEvents]) -> Sequence[RunEvents]:
    """Return the runs whose events are few enough to be shown."""
    for some in (runs, [run for run in runs if run.onset_at is not None]):
        if sum(len(run.events) for run in some) <= _MOST_SHOWN:
            return some
    return []


def _time_line(run: RunEvents) -> Iterator[list[Any]]:
    rows: list[tuple[int, list[Any]]] = [
        (event.at, [event.task, event.metric, event.kind, event.at, (event.low, event.high), event.corrected_p_value])
        for event in run.events
    ]
    if run.onset_at is not None:
        ends = (run.onset_low, run.onset_high)
        rows.append((run.onset_at, [run.task, run.metric, "onset", run.onset_at, ends, None]))
    for _, (task, metric, kind, at, (low, high), p_value) in sorted(rows, key=lambda row: row[0]):
        yield [run.name, task, metric, kind, at, f"{low:,} to {high:,}", p_value]


def _table(title: str, columns: list[str], rows: list[list[Any]], drop: str) -> TextTable:
    kept = [index for index, column in enumerate(columns) if column != drop]
    return TextTable(title, [columns[index] for index in kept], [[row[index] for index in kept] for row in rows])


def _said(runs: Sequence[RunEvents]) -> str:
    least, most = (pick(run.metrics for run in runs) for pick in (min, max))
    number = f"{most:,} metric{'s' * (most > 1)}" if least == most else f"{least:,} to {most:,} metrics"
    found = sum(len(run.events) for run in runs)
    what = "No metric turns or jumps" if not found else "An event is a turn or a jump of a metric"
    return (
        f"{what} beyond checkpoint-to-checkpoint noise (p < 0.05, corrected for the {number} of a run, three tests "
        "each). What comes first need not be the cause."
    )
