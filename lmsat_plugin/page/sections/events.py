"""The figure of the events of all metrics: a time line a run, those with an onset first."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.figures.events import events_figure
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.sections.alt_text import events_in_words, some_of
from lmsat_plugin.results.series import AXES

_MOST = 8
"""Runs that have room on a page."""


def _events(analyses: Analyses) -> Iterator[ReportFigure]:
    runs = sorted(analyses.events.runs, key=lambda run: run.onset_at is None)
    runs = [run for run in runs if run.events]
    for axis in AXES:
        own = [run for run in runs if run.axis == axis]
        if own:
            drawn = own[:_MOST]
            said = " ".join(f"{run.name}: {events_in_words(run.events)}." for run in drawn)
            yield ReportFigure(
                name="events" if axis == "step" else f"events-on-{axis}",
                title=f"Turns and jumps of every metric by {AXES[axis]}{some_of(drawn, own)}",
                source="",
                alt=f"Events beyond checkpoint-to-checkpoint noise. {said}",
                draw=partial(events_figure, drawn),
            )


PARTS = (_events,)
