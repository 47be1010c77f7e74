"""``lmsat probes``: what was found, and where it comes from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.tables import print_table

if TYPE_CHECKING:
    import argparse

    from lmsat_plugin.plugins import Plugins


class Probes(Command):
    """List the probes and corpora that are installed, their settings, and the plugins that failed to load."""

    name = "probes"
    help = "the probes, corpora and plugins found"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add ``--json``."""
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> None:
        """Print the lists."""
        from lmsat_plugin.plugins import plugins

        found = describe(plugins())
        if args.json:
            print(json.dumps(found, indent=2))
            return
        print_table(
            "Probes",
            ("task", "from", "needs", "settings"),
            [
                (p["task"], p["origin"], ", ".join(p["needs"]), ", ".join(p["settings"]))
                for p in found["probes"]
            ],
        )
        print_table("Corpora", ("corpus", "from"), [(c["name"], c["origin"]) for c in found["corpora"]])
        if found["failures"]:
            print_table("Skipped plugins", ("plugin", "reason"), list(found["failures"].items()))


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
