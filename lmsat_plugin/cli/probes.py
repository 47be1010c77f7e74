"""``lmsat probes``: the probes, corpora and plugins that are installed; write a probe, and check one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import kind_of
from lmsat_plugin.outside_text import show

if TYPE_CHECKING:
    from lmsat_plugin.plugins import Plugins


class ProbesCommand(AnsweringCommand):
    """List the probes and corpora that are installed, their settings, and the plugins that failed to load.

    `new NAME` writes a package with a probe, its task, a figure and tests into a folder NAME. `check` tries a probe on
    a tiny model: that of a package, installed or in a folder, or those of a file. Its values have to be the same in one
    batch and in many, on one process and on two, and where memory runs out and the pass begins again. The exit code is
    1 where they are not.
    """

    name = "probes"
    has_figure = False
    help = "the probes, corpora and plugins found; write one, and check one"
    examples = ("lmsat probes", "lmsat probes new my_probe", "lmsat probes check my_probe", "lmsat probes --json")

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add what to do, and with which probe."""
        parser.add_argument("action", nargs="?", choices=("new", "check"), help="write a probe, or check one")
        parser.add_argument("probe", nargs="?", metavar="NAME|FILE.py", help="which probe")

    def run(self, args: argparse.Namespace) -> None:
        """List what is installed, write a package, or check a probe."""
        if args.action is None:
            super().run(args)
            return
        if args.format != "table":
            raise LmsatError(f"lmsat probes {args.action} writes no table: leave --json and --format out")
        if args.probe is None:
            raise LmsatError(
                f"lmsat probes {args.action} needs a name: give one, as in lmsat probes {args.action} mine"
            )
        if args.action == "new":
            _write(args.probe)
        else:
            _check(args.probe)

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


def _write(name: str) -> None:
    from lmsat_plugin.probe_packages import write_package

    folder = write_package(name)
    show(
        f"{folder}/ is a package with a probe, lmsat_{name}/probe.py, and its tests. Next:\n"
        f"  lmsat probes check {name}            try it on a tiny model\n"
        f"  pip install -e ./{name}              let lm_eval and lmsat find the task lmsat_{name}\n"
        f"  lmsat sweep runs/my-model --tasks lmsat_{name} --report"
    )


def _check(name: str) -> None:
    """Check each probe of a name. Raises `LmsatError` for the first that is wrong."""
    from lmsat_plugin.plugins import plugins, use_probe_files
    from lmsat_plugin.probe_checks import check_probe

    if name.endswith(".py"):
        names = use_probe_files([name])
    elif name in plugins().probes:
        names = [name]
    elif kind_of(Path(name)) == "folder":
        from lmsat_plugin.probe_packages import use_package

        names = use_package(Path(name))
    else:
        raise LmsatError(
            f"no probe is named '{name}' (known: {', '.join(plugins().probes)}), and there is no folder of this name: "
            "correct it, or give a file that ends in .py"
        )
    for each in names:
        metrics = check_probe(plugins().probe(each)())
        values = ", ".join(f"{key} {'–' if value is None else format(value, '.4g')}" for key, value in metrics.items())
        show(f"lmsat_{each}: {values or 'no metric'} on a tiny model")
        show("The same in one batch and in many, on one process and on two, and where a pass begins again.")


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
