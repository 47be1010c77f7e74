"""The hooks of a plugin. Each takes one dataclass, so that it can grow without breaking a plugin.

A plugin is a module of functions marked with ``@lmsat_plugin.hookimpl``, named in the entry-point group
``lmsat``; a folder ``tasks`` beside its package's ``__init__.py`` is searched by lm-eval.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from lmsat_plugin.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from lmsat_plugin.probe import Measurement, Probe
    from lmsat_plugin.text.corpora import CorpusSource

hookspec = pluggy.HookspecMarker("lmsat")
hookimpl = pluggy.HookimplMarker("lmsat")


@dataclass
class ProbeRegistry:
    """Where probes are registered, by name."""

    probes: dict[str, type[Probe]] = field(default_factory=dict)

    def add(self, probe: type[Probe]) -> None:
        """Register a probe class; its lm-eval task is ``lmsat_<name>``.

        Raises ValueError for a taken name, and for what is not a probe.
        """
        kinds = {"name": str, "needs": enum.Flag}
        wrong = [key for key, kind in kinds.items() if not isinstance(getattr(probe, key, None), kind)]
        settings = getattr(probe, "settings_type", None)
        if not isinstance(settings, type) or not issubclass(settings, Settings):
            wrong.append("settings_type")
        if wrong or not isinstance(probe, type):
            raise ValueError(f"{probe!r} is not a probe: it has no {wrong[0] if wrong else 'type'}")
        if probe.name in self.probes:
            raise ValueError(f"a probe named '{probe.name}' is registered already ({self.probes[probe.name]})")
        self.probes[probe.name] = probe


@dataclass
class CorpusRegistry:
    """Where corpora are registered, by the name that ``corpus=`` takes."""

    sources: dict[str, CorpusSource] = field(default_factory=dict)

    def add(self, name: str, source: CorpusSource) -> None:
        """Register a corpus: a function from settings to documents.

        Raises ValueError for a taken name, and for what is not a function.
        """
        if not isinstance(name, str) or not callable(source):
            raise ValueError(f"{name!r} is not the name of a corpus, or {source!r} is not a function")
        if name in self.sources:
            raise ValueError(f"a corpus named '{name}' is registered already ({self.sources[name]})")
        self.sources[name] = source


@dataclass(frozen=True)
class ReportFigure:
    """One figure of a report; nothing is drawn before ``draw`` is called."""

    name: str
    """The stem of its files."""
    title: str
    source: str
    """The paper and its figure that this one follows; may be empty."""
    alt: str
    """One sentence for those who cannot see it, with the numbers that matter."""
    draw: Callable[[], Figure]
    """Draws it, with matplotlib."""
    panels: Sequence[tuple[str, str]] = ()
    """Tasks and metrics that a browser draws over training in the image's place, a panel each."""
    models: Sequence[str] | None = None
    """The models that are drawn there, replicates under the name that they share; None for all."""
    axes: Sequence[str] = ()
    """The x axis of each panel: ``tokens``, ``flops`` or ``share``, logarithmic as y is; by default what the reader
    has chosen for the page."""


@dataclass
class FigureRegistry:
    """Where the figures of a report are registered."""

    results: pd.DataFrame
    """The report's results on its one corpus, with the columns of `lmsat_plugin.load_results`."""
    figures: list[ReportFigure] = field(default_factory=list)

    def add(self, figure: ReportFigure) -> None:
        """Register a figure; it is drawn later, and left out with a warning if that fails."""
        self.figures.append(figure)


@dataclass(frozen=True, kw_only=True)
class CheckpointMeasured:
    """One checkpoint's measurements on one corpus."""

    model: str
    revision: str
    measurements: Mapping[str, Measurement]
    """By probe."""
    provenance: Mapping[str, Any]
    """What the result file notes of them under ``config.lmsat``."""


@dataclass(frozen=True, kw_only=True)
class CheckpointEvaluated:
    """One checkpoint's results, as soon as its result file is written."""

    model: str
    revision: str
    step: int | None
    tokens: int | None
    metrics: Mapping[str, float]
    """All values of the file by ``task/metric``, with ``task/metric,filter`` where the filter is not ``none``."""
    path: Path
    """The result file."""
    output: Path
    """The sweep's output folder."""
    trackers: Mapping[str, Mapping[str, Any]]
    """The trackers that the sweep's configuration asks for, with their settings."""
    run: str | None = None
    """What tells it from replicates or branches of the model, such as ``seed3``."""
    branch: str | None = None
    """The stage that began again and that it is of; None in pretraining."""

    @property
    def series(self) -> str:
        """The name of the curve that it is on: the model, with the stage that began again, and the run."""
        part = ", ".join(filter(None, (self.branch, self.run)))
        return f"{self.model} ({part})" if part else self.model


@dataclass(frozen=True)
class SweepFinished:
    """A sweep that has ended."""

    output: Path
    """Its output folder."""
    trackers: Mapping[str, Mapping[str, Any]]
    """The trackers that its configuration asks for, with their settings."""


@hookspec
def lmsat_register_probes(registry: ProbeRegistry) -> None:
    """Called once, when the probes are first asked for: add yours with ``registry.add(MyProbe)``."""


@hookspec
def lmsat_register_corpora(registry: CorpusRegistry) -> None:
    """Called once, when the corpora are first asked for: add yours with ``registry.add(name, source)``."""


@hookspec
def lmsat_register_figures(registry: FigureRegistry) -> None:
    """Called when a report is made: add figures of ``registry.results`` with ``registry.add(figure)``."""


@hookspec
def lmsat_checkpoint_measured(event: CheckpointMeasured) -> None:
    """Called after lm-eval has measured a checkpoint, once for each corpus, on the main process only."""


@hookspec
def lmsat_checkpoint_evaluated(event: CheckpointEvaluated) -> None:
    """Called by a sweep after each result file, on the main process only."""


@hookspec
def lmsat_sweep_finished(event: SweepFinished) -> None:
    """Called when a sweep ends, also when it is interrupted, on the main process only."""
