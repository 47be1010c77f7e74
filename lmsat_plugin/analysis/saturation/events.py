"""Events of every metric during training, turns and jumps, and their order: which come before the loss's onset.

Shapes: K checkpoints, C cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isinf
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.checkpoint_values import shown_scores
from lmsat_plugin.analysis.input_tables import is_tidy, series_in
from lmsat_plugin.analysis.saturation.by_model import Saturation, rows_of
from lmsat_plugin.analysis.saturation.metric_series import DEFAULT
from lmsat_plugin.analysis.saturation.preparation import LEAST_CHECKPOINTS, Cells
from lmsat_plugin.analysis.saturation.several_metrics import find_saturation, has_several_metrics, names_of
from lmsat_plugin.analysis.saturation.turns import Kind, turns_of
from lmsat_plugin.analysis.stats.differences import SIGNIFICANT, holm
from lmsat_plugin.metrics import is_measurement
from lmsat_plugin.metrics import metric as known_metric
from lmsat_plugin.results.framed import Answers, Framed
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

_RESTATED = {
    DEFAULT: {
        *((DEFAULT[0], name) for name in ("perplexity", "bits_per_byte", "unigram_normalised_perplexity")),
        ("lmsat_rank_head", "full_loss"),
    }
}
"""Metrics that are another one in other units: their events are its own."""
_WAYS = ("num_fewshot", "filter")
_READ = (*("model", "at", "step", "branch", "replicate", "corpus", "variant", "task", "metric", "value"), *_WAYS)
_WIDE = 10.0
"""A quantity without an upper end whose largest value is so many times the least is taken by its logarithm."""


@dataclass(frozen=True, kw_only=True)
class MetricEvent:
    """One turn or jump of one metric of a run."""

    task: str
    metric: str
    kind: Kind
    at: int
    """The place of the checkpoint at which it turns, or of the first one after a jump, on the axis of the run."""
    low: int
    high: int
    """``low`` and ``high`` are the ends of its 90 % interval, both of them checkpoints."""
    value: float
    """The metric at that checkpoint."""
    p_value: float
    """How often checkpoint-to-checkpoint noise about a curve without such an event shows as clear a one."""
    corrected_p_value: float
    """``p_value`` corrected for all tests of the run (Holm 1979): below 0.05."""

    @property
    def key(self) -> tuple[str, str, Kind]:
        """What events of several runs share."""
        return self.task, self.metric, self.kind


@dataclass(frozen=True, kw_only=True)
class RunEvents(Framed):
    """All events of one run, on one axis. As a table it has a row an event."""

    name: str
    """What people call the run."""
    label: str
    group: str
    """``label`` and ``group`` are those of the verdict."""
    task: str | None
    metric: str
    """``task`` and ``metric`` are what the verdict judges."""
    axis: str
    is_judged: bool
    """Whether there were enough checkpoints for a verdict."""
    onset_at: int | None
    onset_low: int | None
    onset_high: int | None
    """The onset of the judged loss and its 90 % interval; None without one."""
    events: tuple[MetricEvent, ...]
    """In the order of their places."""
    metrics: int
    """How many metrics were tested: those with at least eight checkpoints that differ."""
    tests: int
    """How many tests were corrected for."""
    first: int
    last: int
    """The places of the first and the last checkpoint."""

    def beside_onset(self, event: MetricEvent) -> str | None:
        """Return ``before``, ``same time`` (the intervals overlap) or ``after`` the onset; None without an onset."""
        if self.onset_low is None or self.onset_high is None:
            return None
        if event.high <= self.onset_low:
            return "before"
        return "after" if event.low >= self.onset_high else "same time"

    def frame_rows(self) -> Sequence[Mapping[str, Any]]:
        """Return the events as plain data."""
        return [
            {"run": self.name, "axis": self.axis, **asdict(event), "beside_onset": self.beside_onset(event)}
            for event in self.events
        ]


@dataclass(frozen=True, kw_only=True)
class EventOrder:
    """Where one metric's event lies beside the loss's onset, over all runs that have both. It is no cause."""

    task: str
    metric: str
    kind: Kind
    before: int
    same_time: int
    """Runs in which the two intervals overlap."""
    after: int
    with_onset: int
    """Runs with the event and an onset: the sum of the three."""
    onsets: int
    """Runs with an onset in which the metric was tested."""
    without_onset: int
    """Runs with the event that were judged and have no onset."""
    judged_without_onset: int
    """All runs without an onset that were judged and in which the metric was tested."""

    @property
    def key(self) -> tuple[str, str, Kind]:
        """As that of the events."""
        return self.task, self.metric, self.kind

    def counts(self) -> dict[str, int]:
        """Return the numbers of runs alone."""
        return {name: value for name, value in self.to_dict().items() if isinstance(value, int)}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Events(Framed):
    """The events of all runs, and their order. As a table it has a row an event; so has ``order``, a row a kind."""

    runs: tuple[RunEvents, ...]
    order: Answers[EventOrder]

    def frame_rows(self) -> Sequence[Mapping[str, Any]]:
        """Return the events of all runs as plain data."""
        return [row for run in self.runs for row in run.frame_rows()]


def find_events(data: Results | pd.DataFrame, verdicts: Sequence[Saturation] | None = None) -> Events:
    """Return the turns and jumps of every metric of each run, and how they lie beside the loss's onset.

    An event is named if checkpoint-to-checkpoint noise alone would hardly show it (`turns_of`): p < 0.05 after Holm's
    correction for all tests of the run, three a metric. So of runs without any event at most 5 % have one named.
    Tested are all measurements and one score of each downstream task, at the checkpoints that the verdict takes into
    account. Crowded checkpoints count as one, and single ones far from their neighbours are set aside, as for verdicts
    (`Cells`). The metric that the verdict judges has its onset, and is not tested again.

    Args:
        data: Results, or a tidy table. A table of losses alone has no events.
        verdicts: Those of `find_saturation` on the same data; by default they are made. Verdicts by several metrics
            have no onset that is the run's, and no events.

    Raises:
        LmsatError: As `find_saturation`.
    """
    verdicts = find_saturation(data) if verdicts is None else verdicts
    table = series_in(data)
    if not is_tidy(table) or has_several_metrics(verdicts):
        return Events(runs=(), order=Answers())
    scores = shown_scores(table)
    # A row of fewer columns is chosen sooner.
    table = table[[name for name in _READ if name in table.columns]]
    of_model = {str(name): own for name, own in table.groupby("model", sort=False)}
    tested: list[set[tuple[str, str]]] = []
    runs = []
    for name, verdict in zip(names_of(verdicts), verdicts, strict=True):
        if verdict.axis == "order":
            continue
        rows = rows_of(data, of_model[verdict.model], verdict.series)
        judged = (str(verdict.task), verdict.metric)
        left_out = {judged} | _RESTATED.get(judged, set())
        run, own = _run(name, verdict, _series_in(rows, scores, left_out))
        runs.append(run)
        tested.append(own)
    return Events(runs=tuple(runs), order=_order(runs, tested))


def _series_in(
    rows: pd.DataFrame, scores: Sequence[tuple[str, str]], left_out: set[tuple[str, str]]
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Yield task, metric, places and finite values of every metric of a run; of several shots or filters, the most."""
    rows = rows[np.isfinite(rows.value.to_numpy("float64")) & (rows.step > 0).to_numpy(bool)]
    steps, values = rows.step.to_numpy(np.int64), rows.value.to_numpy(np.float64)
    varied = [name for name in _WAYS if name in rows.columns and rows[name].nunique() > 1]
    of_metrics: dict[Any, Any] = rows.groupby(["task", "metric"]).indices
    for (task, metric), found in sorted(of_metrics.items()):
        places = np.asarray(found)
        if (task, metric) in left_out or not (is_measurement(str(task)) or (task, metric) in scores):
            continue
        if ways := [name for name in varied if rows[name].iloc[places].nunique() > 1]:
            alike: dict[Any, Any] = rows.iloc[places].groupby(ways, dropna=False).indices
            places = places[np.asarray(max(alike.values(), key=len))]
        places = places[np.argsort(steps[places], kind="stable")]
        # Of several values at one step the last.
        places = places[np.append(np.diff(steps[places]) != 0, True)]
        yield str(task), str(metric), steps[places], values[places]


def _run(
    name: str, verdict: Saturation, series: Iterator[tuple[str, str, np.ndarray, np.ndarray]]
) -> tuple[RunEvents, set[tuple[str, str]]]:
    """Return the events of a run, and the metrics that were tested."""
    found: list[dict[str, Any]] = []
    tested: set[tuple[str, str]] = set()
    tests = 0
    for task, metric, at_K, values_K in series:
        if len(at_K) < LEAST_CHECKPOINTS:
            continue
        compared_K = _compared(metric, values_K)
        cells = Cells.of(at_K, compared_K)
        if len(cells.place_C) < LEAST_CHECKPOINTS:
            continue
        number, turns = turns_of(at_K[cells.last_C].astype(np.float64), cells.weights_CK @ compared_K)
        tests += number
        if number:
            tested.add((task, metric))
        for turn in turns:
            # A jump or turn lies between two cells, each of which may be of several checkpoints.
            at = int(cells.first_C[turn.at])
            places = {"at": at, "low": int(cells.first_C[turn.low]), "high": int(cells.last_C[turn.high])}
            found.append({
                **{"task": task, "metric": metric, "kind": turn.kind, "p_value": turn.p_value},
                **{key: int(at_K[place]) for key, place in places.items()},
                "value": float(values_K[at]),
            })  # fmt: skip
    # Tests with a larger p come after all of these, and do not change their correction.
    p_values = np.concatenate([[one["p_value"] for one in found], np.ones(tests - len(found))])
    corrected = holm(p_values)
    events = [
        MetricEvent(**one, corrected_p_value=float(p_value))
        for one, p_value in zip(found, corrected, strict=False)
        if p_value < SIGNIFICANT
    ]
    events.sort(key=lambda event: (event.at, event.key))
    return (
        RunEvents(
            name=name,
            **{key: getattr(verdict, key) for key in ("label", "group", "task", "metric", "axis")},
            is_judged=verdict.p_value is not None,
            **{key: getattr(verdict, key) for key in ("onset_at", "onset_low", "onset_high")},
            events=tuple(events),
            metrics=len(tested),
            tests=tests,
            first=verdict.min_at,
            last=verdict.final_at,
        ),
        tested,
    )


def _compared(metric: str, values_K: np.ndarray) -> np.ndarray:
    """Return the values as they are compared: by their logarithm where they are of very different sizes."""
    known = known_metric(metric)
    unbounded = known.high is None or isinf(known.high)
    least = float(values_K.min())
    return np.log(values_K) if unbounded and least > 0 and values_K.max() > _WIDE * least else values_K


def _order(runs: Sequence[RunEvents], tested: Sequence[set[tuple[str, str]]]) -> Answers[EventOrder]:
    """Return the order of all events of the runs, those of the most runs first."""
    keys = list(dict.fromkeys(event.key for run in runs for event in run.events))
    found = []
    for task, metric, kind in keys:
        own = [run for run, metrics in zip(runs, tested, strict=True) if (task, metric) in metrics and run.is_judged]
        places = []
        without = 0
        for run in own:
            event = next((event for event in run.events if event.key == (task, metric, kind)), None)
            if event is not None and run.onset_at is not None:
                places.append(run.beside_onset(event))
            elif event is not None:
                without += 1
        onsets = sum(run.onset_at is not None for run in own)
        found.append(
            EventOrder(
                task=task,
                metric=metric,
                kind=kind,
                before=places.count("before"),
                same_time=places.count("same time"),
                after=places.count("after"),
                with_onset=len(places),
                onsets=onsets,
                without_onset=without,
                judged_without_onset=len(own) - onsets,
            )
        )
    found.sort(key=lambda one: (-one.with_onset, -one.without_onset, one.task, one.metric, one.kind))
    return Answers(found)
