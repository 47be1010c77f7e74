"""``lmsat probes``: what was found, and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.command import Answer, AnsweringCommand
from lmsat_plugin.cli.tables import TextTable

if TYPE_CHECKING:
    import argparse

    from lmsat_plugin.plugins import Plugins


class ProbesCommand(AnsweringCommand):
    """List the probes and corpora that are installed, their settings, and the plugins that failed to load."""

    name = "probes"
    has_figure = False
    help = "the probes, corpora and plugins found"

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the lists."""
        from lmsat_plugin.plugins import plugins

        found = describe(plugins())
        probes = [
            (p["task"], p["origin"], ", ".join(p["needs"]), ", ".join(p["settings"])) for p in found["probes"]
        ]
        parts = [
            TextTable("Probes", ("task", "from", "needs", "settings"), probes),
            TextTable("Corpora", ("corpus", "from"), [(c["name"], c["origin"]) for c in found["corpora"]]),
        ]
        if found["failures"]:
            parts.append(TextTable("Skipped plugins", ("plugin", "reason"), list(found["failures"].items())))
        return Answer(found, parts)


def describe(found: Plugins) -> dict[str, Any]:
    """Return what was found, as plain data."""
    return {
        "probes": [
            {
                "name": name,
                "task": f"lmsat_{name}",
                "origin": found.origins[f"probe:{name}"],
                "version": probe.version,
                "needs": [need.name for need in probe.needs],
                "settings": {
                    key: field.get_default(call_default_factory=True)
                    for key, field in probe.settings_type.model_fields.items()
                },
            }
            for name, probe in found.probes.items()
        ],
        "corpora": [{"name": name, "origin": found.origins[f"corpus:{name}"]} for name in found.corpora],
        "failures": found.failures,
    }
