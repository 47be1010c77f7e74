"""``lmsat probes``: the probes, corpora and plugins that are installed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable

if TYPE_CHECKING:
    from lmsat_plugin.plugins import Plugins


class ProbesCommand(AnsweringCommand):
    """List the probes and corpora that are installed, their settings, and the plugins that failed to load."""

    name = "probes"
    has_figure = False
    help = "the probes, corpora and plugins found"
    examples = ("lmsat probes", "lmsat probes --json")

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the lists."""
        from lmsat_plugin.plugins import plugins

        data = describe(plugins())
        parts = []
        for title, expensive in (("Probes", False), ("Expensive probes, which lmsat_* leaves out", True)):
            rows = [
                (p["task"], p["origin"], p["cost"], ", ".join(p["needs"]), ", ".join(p["settings"]))
                for p in data["probes"]
                if p["expensive"] == expensive
            ]
            if rows:
                parts.append(TextTable(title, ("task", "from", "cost", "needs", "settings"), rows))
        parts.append(TextTable("Corpora", ("corpus", "from"), [(c["name"], c["origin"]) for c in data["corpora"]]))
        if data["failures"]:
            parts.append(TextTable("Skipped plugins", ("plugin", "reason"), list(data["failures"].items())))
        return Answer(data=data, parts=parts)


def describe(installed: Plugins) -> dict[str, Any]:
    """Return the probes, corpora and failures as plain data."""
    return {
        "probes": [
            {
                "name": name,
                "task": probe.task(),
                "cost": probe.stated_cost(),
                "expensive": probe.is_expensive,
                "origin": installed.origins[f"probe:{name}"],
                "version": probe.version,
                "needs": [need.name for need in probe.needs],
                "settings": {
                    key: field.get_default(call_default_factory=True)
                    for key, field in probe.settings_type.model_fields.items()
                },
            }
            for name, probe in installed.probes.items()
        ],
        "corpora": [{"name": name, "origin": installed.origins[f"corpus:{name}"]} for name in installed.corpora],
        "failures": installed.failures,
    }
