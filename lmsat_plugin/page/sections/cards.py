"""Which saturation cards the results can fill: one for each model."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import islice

import pandas as pd

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.checkpoint_values import by_step, over_runs, values_of
from lmsat_plugin.analysis.downstream_average import downstream_average
from lmsat_plugin.analysis.saturation import Saturation, replicates
from lmsat_plugin.analysis.saturation.events import MetricEvent
from lmsat_plugin.figures.card import Track, card_figure
from lmsat_plugin.figures.trajectories import axis_of
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.sections.alt_text import events_in_words, listed

_MOST = 24
"""Cards in a page: it would be slow to write and to open with hundreds of them."""
_LOSS_LABEL = "loss\n(nats per token)"
_TRACKS = (
    ("lmsat_loss", "loss", _LOSS_LABEL, False),
    ("lmsat_anisotropy", "anisotropy_last", "anisotropy\n(last layer)", False),
    ("lmsat_head", "singular_entropy", "singular\nentropy (nats)", True),
)
"""Task, metric, label, and whether the axis is logarithmic."""
ABOVE_CHANCE = "downstream", "score above chance"
"""What charts call the downstream average, a task and a metric of no result file."""


def _cards(analyses: Analyses) -> Iterator[ReportFigure]:
    """Yield a card for each model with several steps: first the models that saturate, then the others by size.

    The runs of one model share a card.
    """
    of_loss = [result for result in analyses.saturation if (result.task, result.metric) == ("lmsat_loss", "loss")]
    groups = replicates.groups_of(of_loss)
    verdicts = {result.label: result for result in of_loss if result.group not in groups}
    saturating = {
        result.group if result.group in groups else result.label for result in of_loss if result.verdict == "saturates"
    }
    models = sorted(analyses.group_sizes, key=lambda model: model not in saturating)
    with_tracks = ((model, tracks) for model in models if (tracks := _tracks(analyses, model)))
    for model, tracks in islice(with_tracks, _MOST):
        verdict = verdicts.get(model) if tracks[0].label == _LOSS_LABEL else None
        runs = [run for run in analyses.events.runs if model in (run.group, run.label)]
        events = [event for run in runs for event in run.events if run.axis == axis_of(tracks[0].table)]
        said = verdict.verdict if verdict else replicates.over_runs(groups[model]) if model in groups else None
        title = f"{model}: {said}" if said else model
        yield ReportFigure(
            name=f"card-{re.sub(r'[^A-Za-z0-9.-]+', '-', model).strip('-.') or 'model'}"[:100],
            title=title,
            source="",
            alt=_alt(title if model in groups else model, tracks, verdict, events),
            draw=partial(card_figure, title if model in groups else model, tracks, verdict, events=events),
            panels=(*((task, metric) for task, metric, _, _ in _TRACKS), ABOVE_CHANCE),
            models=(model,),
        )
    several = int((analyses.table.groupby("group")["at"].nunique() > 1).sum())
    if several > _MOST:
        analyses.missing["cards"] = (
            f"{_MOST} of {several} models have one: first those that saturate, then the others by size"
        )


def _tracks(analyses: Analyses, model: str) -> list[Track]:
    table = analyses.table[analyses.table.group == model]
    tracks = []
    for task, metric, label, log in _TRACKS:
        rows = over_runs(by_step(values_of(table, task, metric)))
        tracks.append(Track(label=label, table=rows, log=log and bool((rows.value > 0).all())))
    values, tasks = _above_chance(table, analyses.results.groups)
    mean = "one task" if len(tasks) == 1 else f"mean of {len(tasks)} tasks"
    tracks.append(Track(label=f"score above chance\n({mean})", table=over_runs(by_step(values))))
    return [track for track in tracks if len(track.table)]


def above_chance(analyses: Analyses) -> pd.DataFrame:
    """Return the downstream average of all checkpoints, as `_above_chance` does; each model's is over its own tasks."""
    by_group = (_above_chance(own, analyses.results.groups)[0] for _, own in analyses.table.groupby("group"))
    return pd.concat(list(by_group), ignore_index=True)


def _above_chance(table: pd.DataFrame, groups: Collection[str]) -> tuple[pd.DataFrame, Sequence[str]]:
    """Return the downstream average of each checkpoint, over the tasks that all checkpoints with scores have.

    Beside it these tasks.
    """
    rows = table[table["at"].notna()]
    # The average is over what several models share: here each checkpoint is a model.
    number = rows.groupby(["model", "group", "axis", "at"], sort=False).ngroup().astype(str)
    average = downstream_average(rows.assign(model=number), groups)
    scores, tasks = ({}, ()) if average is None else (average.scores, average.tasks)
    values = pd.DataFrame([(name, *score) for name, score in scores.items()], columns=["number", "value", "stderr"])
    places = rows[["model", "group", "axis", "at"]].rename(columns={"at": "step"}).assign(number=number)
    return values.merge(places.drop_duplicates("number"), on="number").sort_values("step"), tasks


def _alt(model: str, tracks: list[Track], verdict: Saturation | None, events: Sequence[MetricEvent]) -> str:
    ends = ((track.label.replace("\n", " "), track.table.value.iloc[[0, -1]]) for track in tracks)
    parts = [f"{label} from {first:.3g} to {last:.3g}" for label, (first, last) in ends]
    if verdict is not None:
        parts.append(f"best loss {verdict.best:.4g} at {_place(verdict, verdict.best_at)}")
        if verdict.onset_at is not None:
            interval = f"90 % interval {verdict.onset_low} to {verdict.onset_high}"
            parts.append(f"onset of saturation at {_place(verdict, verdict.onset_at)} ({interval})")
    said = f" Events: {events_in_words(events)}." if events else ""
    return f"{model} in training: {listed(parts)}.{said}"


def _place(verdict: Saturation, at: int) -> str:
    return f"step {at}" if verdict.axis == "step" else verdict.place(at)


PARTS = (_cards,)
