"""The plugin manager. The built-in probes and corpora register through it like anyone's."""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pluggy

from lmsat_plugin import hookspecs
from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.hookspecs import (
    CheckpointEvaluated,
    CheckpointMeasured,
    CorpusRegistry,
    FigureRegistry,
    ProbeRegistry,
    SweepFinished,
    hookimpl,
)
from lmsat_plugin.settings import unknown_setting
from lmsat_plugin.trackers import TRACKERS, Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    import pandas as pd
    from matplotlib.figure import Figure

    from lmsat_plugin.hookspecs import ReportFigure
    from lmsat_plugin.probe import Probe
    from lmsat_plugin.text.corpora import CorpusSource

logger = logging.getLogger(__name__)

_EVENTS = {
    CheckpointMeasured: "lmsat_checkpoint_measured",
    CheckpointEvaluated: "lmsat_checkpoint_evaluated",
    SweepFinished: "lmsat_sweep_finished",
}


class BuiltIn:
    """lmsat's own probes and corpora."""

    @hookimpl
    def lmsat_register_probes(self, registry: ProbeRegistry) -> None:
        """Register the built-in probes."""
        from lmsat_plugin.probes.anisotropy import AnisotropyProbe
        from lmsat_plugin.probes.gradient_bottleneck import GradientBottleneckProbe
        from lmsat_plugin.probes.gradient_noise.probe import GradientNoiseProbe
        from lmsat_plugin.probes.head import HeadProbe
        from lmsat_plugin.probes.loss import LossProbe
        from lmsat_plugin.probes.ngram import NgramProbe
        from lmsat_plugin.probes.rank_head.probe import RankHeadProbe

        for probe in (
            LossProbe,
            AnisotropyProbe,
            HeadProbe,
            RankHeadProbe,
            GradientBottleneckProbe,
            GradientNoiseProbe,
            NgramProbe,
        ):
            registry.add(probe)

    @hookimpl
    def lmsat_register_corpora(self, registry: CorpusRegistry) -> None:
        """Register the built-in corpora."""
        from lmsat_plugin.text.corpora import hub_corpora, sample

        registry.add("sample", sample)
        for name, source in hub_corpora().items():
            registry.add(name, source)


@dataclass
class Plugins:
    """What was found: the manager, the registries, each name's origin, and what failed with its reason."""

    manager: pluggy.PluginManager
    probes: dict[str, type[Probe]] = field(default_factory=dict)
    corpora: dict[str, CorpusSource] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    """From ``probe:NAME`` or ``corpus:NAME`` to the distribution or module it comes from."""
    failures: dict[str, str] = field(default_factory=dict)
    """From a plugin's name to why it is not used."""

    def register(self, plugin: object, name: str, origin: str) -> None:
        """Use a plugin: check its hooks, take its probes and corpora. All or nothing; a failure is recorded."""
        if (other := self.manager.get_name(plugin)) is not None:
            self.skip(name, f"it is the same plugin as '{other}'")
            return
        probes, corpora = ProbeRegistry(dict(self.probes)), CorpusRegistry(dict(self.corpora))
        try:
            self.manager.register(plugin, name=name)
            self.manager.check_pending()
            calls = self.manager.subset_hook_caller("lmsat_register_probes", self._others(plugin))
            calls(registry=probes)
            calls = self.manager.subset_hook_caller("lmsat_register_corpora", self._others(plugin))
            calls(registry=corpora)
        except Exception as error:
            if self.manager.is_registered(plugin):
                self.manager.unregister(plugin)
            # Of pluggy's complaints the last line has the reason.
            pluggys = isinstance(error, pluggy.PluginValidationError)
            self.skip(name, str(error).splitlines()[-1] if pluggys else first_sentence(error))
            return
        self.origins.update({f"probe:{key}": origin for key in probes.probes.keys() - self.probes.keys()})
        self.origins.update({f"corpus:{key}": origin for key in corpora.sources.keys() - self.corpora.keys()})
        self.probes, self.corpora = probes.probes, corpora.sources

    def figures(self, results: pd.DataFrame) -> list[ReportFigure]:
        """Return the plugins' figures of a report's results; those of a plugin that fails are left out."""
        found: list[ReportFigure] = []
        for name, plugin in self.manager.list_name_plugin():
            registry = FigureRegistry(results)
            try:
                call = self.manager.subset_hook_caller("lmsat_register_figures", self._others(plugin))
                call(registry=registry)
            except Exception as error:
                reason = first_sentence(error)
                logger.warning("plugin '%s' failed in lmsat_register_figures: %s", name, reason)
            else:
                found += [replace(figure, draw=_guarded(name, figure)) for figure in registry.figures]
        return found

    def tell(self, event: CheckpointMeasured | CheckpointEvaluated | SweepFinished) -> None:
        """Call the event's hook in each plugin; one that fails loses neither the result nor the others."""
        hook = _EVENTS[type(event)]
        subject = event.output if isinstance(event, SweepFinished) else event.model
        for name, plugin in self.manager.list_name_plugin():
            call = self.manager.subset_hook_caller(hook, self._others(plugin))
            try:
                call(event=event)
            except Exception as error:
                logger.warning(
                    "plugin '%s' failed in %s of %s: %s", name, hook, subject, first_sentence(error)
                )

    def skip(self, name: str, reason: str) -> None:
        """Leave a plugin out, and say so."""
        self.failures[name] = reason
        logger.warning("plugin '%s' is not used: %s", name, reason)

    def check_trackers(self, trackers: Mapping[str, Mapping[str, Any]]) -> None:
        """Check the trackers that a sweep asks for before it begins.

        A name that is not built in may be that of any plugin that implements ``lmsat_checkpoint_evaluated``.

        Raises:
            LmsatError: For a tracker or a setting that nobody knows, and for a package that is not installed.
        """
        known = {tracker.name: tracker() for tracker in TRACKERS}
        listeners = self.manager.hook.lmsat_checkpoint_evaluated.get_hookimpls()
        others = any(not isinstance(listener.plugin, Tracker) for listener in listeners)
        for name, settings in trackers.items():
            if name in known:
                names = known[name].known_settings()
                for key in settings:
                    if key not in names:
                        raise unknown_setting(key, names)
            elif not others:
                raise LmsatError(
                    f"no tracker is named '{name}' (known: {', '.join(known)}): correct the name"
                )

    def _others(self, plugin: object) -> list[object]:
        return [other for other in self.manager.get_plugins() if other is not plugin]

    def probe(self, name: str) -> type[Probe]:
        """Return a probe by name. Raises `LmsatError` for an unknown one."""
        if name not in self.probes:
            reasons = ", ".join(f"{plugin} ({reason})" for plugin, reason in self.failures.items())
            failed = f"; failed to load: {reasons}" if reasons else ""
            raise LmsatError(
                f"no probe is named '{name}' (known: {', '.join(self.probes)}{failed}): correct the name"
            )
        return self.probes[name]


def _guarded(plugin: str, figure: ReportFigure) -> Callable[[], Figure]:
    """Return the drawing of a plugin's figure, whose failures are sentences."""

    def draw() -> Figure:
        try:
            return figure.draw()
        except Exception as error:
            raise LmsatError(
                f"plugin '{plugin}' failed to draw {figure.name}: {first_sentence(error)}"
            ) from error

    return draw


def load() -> Plugins:
    """Return a new manager with the built-ins and all installed plugins; a plugin that fails is skipped.

    ``LMSAT_PLUGINS=0`` leaves the installed ones out.
    """
    manager = pluggy.PluginManager("lmsat")
    manager.add_hookspecs(hookspecs)
    found = Plugins(manager)
    found.register(BuiltIn(), "lmsat", "built in")
    for tracker in TRACKERS:
        found.register(tracker(), f"lmsat.{tracker.name}", "built in")
    if os.environ.get("LMSAT_PLUGINS") != "0":
        for entry in entry_points(group="lmsat"):
            origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            try:
                plugin = entry.load()
            except (Exception, SystemExit) as error:
                found.skip(entry.name, f"{entry.value} does not import ({first_sentence(error)})")
            else:
                found.register(plugin, entry.name, origin)
    return found


@functools.cache
def plugins() -> Plugins:
    """Return this process' plugins, loaded once."""
    return load()
