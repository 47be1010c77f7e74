"""The tasks that ask for a probe, found by name without lm-eval, whose import and index take seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import lmsat_autoload
from lmsat_plugin.plugins import plugins


class ProbeTasks:
    """What a plan asks of `SharedTasks`, for tasks that each ask for a probe.

    Args:
        probes: The probes by the names of the tasks.
    """

    def __init__(self, probes: dict[str, str]) -> None:
        self._probes = probes

    def resolve(self, wanted: Sequence[str]) -> list[str]:
        """Return the names, each once."""
        return list(dict.fromkeys(wanted))

    def probe_of(self, name: str) -> str | None:
        """Return the probe that a task asks for."""
        return self._probes[name]

    def version_of(self, name: str) -> Any:
        """Return the probe's version, which identifies the task."""
        return plugins().probe(self._probes[name]).version

    def files_of(self, name: str) -> list[Path]:
        """Return no file: the probe is what makes the task."""
        return []


def find_probe_tasks(wanted: Sequence[str], include_path: Sequence[str]) -> ProbeTasks | None:
    """Return the tasks of these names; None unless each is a task of lmsat or a plugin that asks for a probe.

    With folders of the user's, which may have tasks of the same names, it is None too.
    """
    if include_path:
        return None
    found: dict[str, str | None] = {}
    for folder in lmsat_autoload.task_folders():
        # As in lm-eval's index: within a folder the first task of a name counts, and of the folders the last.
        here: dict[str, str | None] = {}
        for path in sorted(folder.glob("**/*.yaml"), key=Path.as_posix):
            for name, probe in _names_in(path, wanted).items():
                here.setdefault(name, probe)
        found.update(here)
    probes = {name: probe for name in wanted if (probe := found.get(name)) is not None}
    return ProbeTasks(probes) if len(probes) == len(set(wanted)) else None


def _names_in(path: Path, wanted: Sequence[str]) -> dict[str, str | None]:
    """Return the names that a file defines, with the probe; None for a task that may ask for none."""
    try:
        text = path.read_text("utf-8")
        if "include:" not in text and not any(name in text for name in wanted):
            return {}
        config = yaml.load(text, _Loader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    if not isinstance(config, dict):
        return {}
    probe = config.get("probe")
    is_plain = isinstance(probe, str) and "class" in config and "include" not in config
    names = [config.get("task"), config.get("group"), *_listed(config.get("tag"))]
    return {name: probe if is_plain and name == config.get("task") else None for name in names if isinstance(name, str)}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads a task's YAML without its functions."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))
