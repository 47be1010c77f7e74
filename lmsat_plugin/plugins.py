"""Find the plugins and call their hooks. The built-in probes and corpora are registered in the same way."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from lmsat_plugin import hookspecs
from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.hookspecs import (
    CheckpointEvaluated,
    CheckpointMeasured,
    CorpusRegistry,
    FigureRegistry,
    ProbeRegistry,
    ReportFigure,
    SweepFinished,
    hookimpl,
)
from lmsat_plugin.plugin_code import contained, named_if_slow
from lmsat_plugin.settings import unknown_setting
from lmsat_plugin.trackers import TRACKERS, Tracker

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

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
        from lmsat_plugin.probes.activations import ActivationsProbe
        from lmsat_plugin.probes.anisotropy import AnisotropyProbe
        from lmsat_plugin.probes.attention.probe import AttentionProbe
        from lmsat_plugin.probes.geometry import GeometryProbe
        from lmsat_plugin.probes.gradient_bottleneck import GradientBottleneckProbe
        from lmsat_plugin.probes.gradient_noise.probe import GradientNoiseProbe
        from lmsat_plugin.probes.head import HeadProbe
        from lmsat_plugin.probes.loss import LossProbe
        from lmsat_plugin.probes.ngram import NgramProbe
        from lmsat_plugin.probes.ngram_gap.probe import NgramGapProbe
        from lmsat_plugin.probes.rank_head.probe import RankHeadProbe
        from lmsat_plugin.probes.robustness.quantization import QuantizationProbe
        from lmsat_plugin.probes.robustness.sharpness import SharpnessProbe
        from lmsat_plugin.probes.robustness.weight_noise import WeightNoiseProbe
        from lmsat_plugin.probes.similarity.probe import SimilarityProbe
        from lmsat_plugin.probes.weights import WeightsProbe

        for probe in (
            *(LossProbe, AnisotropyProbe, HeadProbe, RankHeadProbe),
            *(GradientBottleneckProbe, GradientNoiseProbe, NgramProbe, GeometryProbe, ActivationsProbe),
            *(AttentionProbe, NgramGapProbe),
            *(WeightsProbe, QuantizationProbe, WeightNoiseProbe, SharpnessProbe, SimilarityProbe),
        ):
            registry.add(probe)

    @hookimpl
    def lmsat_register_corpora(self, registry: CorpusRegistry) -> None:
        """Register the built-in corpora."""
        from lmsat_plugin.text.corpora import hub_corpora, sample

        registry.add("sample", sample)
        for name, source in hub_corpora().items():
            registry.add(name, source)


class Plugins:
    """The plugins that were found, what they register, and which of them are not used.

    Probes import torch: they, and the corpora, are registered when they are first asked for.
    """

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self.manager = manager
        self._probes: dict[str, type[Probe]] = {}
        self._corpora: dict[str, CorpusSource] = {}
        self._origins: dict[str, str] = {}
        self._waiting: list[tuple[object, str, str]] = []
        """Plugins, their names and origins, that have not been asked for their probes and corpora yet."""
        self._named = [Path(name) for name in os.environ.get("LMSAT_PROBES", "").split(os.pathsep) if name]
        """Files of probes that the environment names, and that have not been read yet."""
        self._failures: dict[str, str] = {}
        self._files: dict[Path, list[type[Probe]]] = {}
        """The probes of each file that is used."""

    def register(self, plugin: object, name: str, origin: str) -> None:
        """Use a plugin, with all of its hooks or none: one that fails is left out, and the reason recorded."""
        if (other := self.manager.get_name(plugin)) is not None:
            self.skip(name, f"it is the same plugin as '{other}'")
            return
        try:
            with contained():
                self.manager.register(plugin, name=name)
                self.manager.check_pending()
        except Exception as error:
            self._drop(plugin, name, error)
        else:
            self._waiting.append((plugin, name, origin))

    def use_file(self, path: Path) -> list[str]:
        """Use the probes that a file defines; of a file that has changed, the new ones. Return their names.

        Raises `LmsatError` for a file that does not import, defines no probe, or takes a name that is taken.
        """
        from lmsat_plugin.probe_files import read_probes

        kinds = read_probes(path)
        if self._files.get(path) != kinds:
            self._ask_waiting()
            old = self._files.pop(path, [])
            registry = ProbeRegistry({name: kind for name, kind in self._probes.items() if kind not in old})
            try:
                for kind in kinds:
                    registry.add(kind)
            except ValueError as error:
                raise LmsatError(f"{path} cannot be used: {error}") from error
            self._probes, self._files[path] = registry.probes, kinds
            self._origins = {**self._origins, **{f"probe:{kind.name}": path.name for kind in kinds}}
        return [kind.name for kind in kinds]

    def _ask_waiting(self) -> None:
        """Register the probes and corpora of the plugins that have not been asked for them yet."""
        while self._waiting:
            plugin, name, origin = self._waiting.pop(0)
            probes, corpora = ProbeRegistry(dict(self._probes)), CorpusRegistry(dict(self._corpora))
            try:
                self._call(plugin, name, "lmsat_register_probes", registry=probes)
                self._call(plugin, name, "lmsat_register_corpora", registry=corpora)
            except Exception as error:
                self._drop(plugin, name, error)
                continue
            new = [f"probe:{key}" for key in probes.probes.keys() - self._probes.keys()]
            new += [f"corpus:{key}" for key in corpora.sources.keys() - self._corpora.keys()]
            self._origins = {**self._origins, **dict.fromkeys(new, origin)}
            self._probes, self._corpora = probes.probes, corpora.sources
        while self._named:
            path = self._named.pop(0)
            try:
                self.use_file(path)
            except LmsatError as error:
                self.skip(path.name, str(error))

    @property
    def probes(self) -> dict[str, type[Probe]]:
        """The probes, by name."""
        self._ask_waiting()
        return self._probes

    @property
    def corpora(self) -> dict[str, CorpusSource]:
        """The named corpora."""
        self._ask_waiting()
        return self._corpora

    @property
    def origins(self) -> dict[str, str]:
        """From ``probe:NAME`` or ``corpus:NAME`` to the distribution or module it comes from."""
        self._ask_waiting()
        return self._origins

    @property
    def failures(self) -> dict[str, str]:
        """From a plugin's name to why it is not used."""
        self._ask_waiting()
        return self._failures

    def figures(self, results: pd.DataFrame) -> list[ReportFigure]:
        """Return the plugins' figures of a report's results; those of a plugin that fails are left out."""
        figures: list[ReportFigure] = []
        for name, plugin in self.manager.list_name_plugin():
            registry = FigureRegistry(results)
            try:
                self._call(plugin, name, "lmsat_register_figures", registry=registry)
                figures += [replace(figure, draw=_guarded(name, figure)) for figure in registry.figures]
            except Exception as error:
                self._warn(name, "lmsat_register_figures", error)
        return figures

    def tell(self, event: CheckpointMeasured | CheckpointEvaluated | SweepFinished) -> None:
        """Call the event's hook in each plugin; one that fails loses neither the result nor the others."""
        hook = _EVENTS[type(event)]
        about = event.output if isinstance(event, SweepFinished) else event.model
        for name, plugin in self.manager.list_name_plugin():
            try:
                self._call(plugin, name, hook, event=event)
            except Exception as error:
                self._warn(name, f"{hook} of {about}", error)

    def skip(self, name: str, reason: str) -> None:
        """Record that a plugin is not used, with a warning."""
        self._failures[name] = reason
        logger.warning("plugin '%s' is not used: %s", name, reason)

    def _warn(self, name: str, where: str, error: Exception) -> None:
        logger.warning("plugin '%s' failed in %s: %s", name, where, first_sentence(error))

    def _drop(self, plugin: object, name: str, error: Exception) -> None:
        """Leave out a plugin that has failed."""
        if self.manager.is_registered(plugin):
            self.manager.unregister(plugin)
        # The last line of pluggy's complaints has the reason.
        by_pluggy = isinstance(error, pluggy.PluginValidationError)
        self.skip(name, str(error).splitlines()[-1] if by_pluggy else first_sentence(error))

    def _call(self, plugin: object, name: str, hook: str, **arguments: Any) -> None:
        """Call a hook of one plugin. Raises an `Exception` for whatever the plugin raises."""
        others = [other for other in self.manager.get_plugins() if other is not plugin]
        call = self.manager.subset_hook_caller(hook, others)
        # Importing torch for the built-in probes may take a while.
        with contained(), nullcontext() if isinstance(plugin, BuiltIn) else named_if_slow(name, hook):
            call(**arguments)

    def check_trackers(self, trackers: Mapping[str, Mapping[str, Any]]) -> None:
        """Check the trackers that a sweep asks for before it begins.

        A name that is not built in may be that of any plugin that implements ``lmsat_checkpoint_evaluated``. Raises
        `LmsatError` for a tracker or a setting that nobody knows, and for a package that is not installed.
        """
        known = {tracker.name: tracker() for tracker in TRACKERS}
        listeners = self.manager.hook.lmsat_checkpoint_evaluated.get_hookimpls()
        others = any(not isinstance(listener.plugin, Tracker) for listener in listeners)
        for name, settings in trackers.items():
            if name in known:
                names = known[name].known_settings()
                if unknown := [key for key in settings if key not in names]:
                    raise unknown_setting(unknown[0], names)
            elif not others:
                raise LmsatError(f"no tracker is named '{name}' (known: {', '.join(known)}): correct the name")

    def probe(self, name: str) -> type[Probe]:
        """Return a probe by name. Raises `LmsatError` for an unknown one."""
        if name not in self.probes:
            reasons = ", ".join(f"{plugin} ({reason})" for plugin, reason in self.failures.items())
            failed = f"; failed to load: {reasons}" if reasons else ""
            raise LmsatError(f"no probe is named '{name}' (known: {', '.join(self.probes)}{failed}): correct the name")
        return self.probes[name]


def _guarded(plugin: str, figure: ReportFigure) -> Callable[[], Figure]:
    """Return the drawing of a plugin's figure, whose failures are sentences."""

    def draw() -> Figure:
        try:
            with contained(), named_if_slow(plugin, f"drawing {figure.name}"):
                return figure.draw()
        except Exception as error:
            raise LmsatError(f"plugin '{plugin}' failed to draw {figure.name}: {first_sentence(error)}") from error

    return draw


def load() -> Plugins:
    """Return a new manager with the built-ins and all installed plugins; one that does not import is left out.

    ``LMSAT_PLUGINS=0`` leaves the installed ones out.
    """
    manager = pluggy.PluginManager("lmsat")
    manager.add_hookspecs(hookspecs)
    loaded = Plugins(manager)
    loaded.register(BuiltIn(), "lmsat", "built in")
    for tracker in TRACKERS:
        loaded.register(tracker(), f"lmsat.{tracker.name}", "built in")
    if os.environ.get("LMSAT_PLUGINS") != "0":
        for entry in entry_points(group="lmsat"):
            origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            try:
                with contained(), named_if_slow(entry.name, f"importing {entry.value}"):
                    plugin = entry.load()
            except Exception as error:
                loaded.skip(entry.name, f"{entry.value} does not import ({first_sentence(error)})")
            else:
                loaded.register(plugin, entry.name, origin)
    return loaded


@functools.cache
def plugins() -> Plugins:
    """Return the plugins of this process, which are loaded once."""
    return load()


def use_probe_files(names: Sequence[str | Path]) -> list[str]:
    """Use the probes of files here and in the processes that this one starts. Return the names of the probes.

    Raises `LmsatError` for a file that is not there, does not import, defines no probe, or takes a name that is taken.
    """
    from lmsat_plugin.probe_files import absolute, name_files

    paths = [absolute(name) for name in names]
    found = [probe for path in paths for probe in plugins().use_file(path)]
    if paths:
        name_files(paths)
    return found
