"""``lmsat doctor``: check the installation."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable

_PACKAGES = (
    *("lmsat-plugin", "lm_eval", "torch", "transformers", "accelerate"),
    *("torchmetrics", "datasets", "pluggy", "pandas"),
)


class DoctorCommand(AnsweringCommand):
    """Check the installation: versions, devices, plugins, and whether plain lm_eval finds the model and the tasks.

    The exit code is 1 if something is missing.
    """

    name = "doctor"
    help = "check the installation"
    examples = ("lmsat doctor", "LMSAT_PLUGINS=0 lmsat doctor", "lmsat doctor --json")

    has_figure = False

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the findings; the result is whether all is well."""
        import torch

        from lmsat_plugin.harness.command import finds_model, finds_tasks
        from lmsat_plugin.plugins import plugins

        def installed(package: str) -> str:
            try:
                return version(package)
            except PackageNotFoundError:
                return "missing"

        hook = "lmsat_autoload" in sys.modules and os.environ.get("LMSAT_AUTOLOAD") != "0"
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["CPU"]
        tasks = finds_tasks() if hook else []
        expected = [probe.task() for probe in plugins().probes.values()]
        without_task = sorted(set(expected) - set(tasks))
        rows = [("python", platform.python_version()), *((package, installed(package)) for package in _PACKAGES)]
        rows += [
            ("devices", ", ".join(devices)),
            ("start-up hook", "on" if hook else "off: use `lmsat eval` instead of `lm_eval`"),
            ("lm_eval --model lmsat", "found" if hook and finds_model() else "not found"),
            ("lm_eval --tasks", ", ".join(tasks) if tasks else "none found"),
            *((f"plugin {name}", f"skipped: {reason}") for name, reason in plugins().failures.items()),
        ]
        if hook and without_task:
            rows.append(("probes without a task", ", ".join(without_task)))
        table = TextTable("lmsat doctor", ("what", "found"), rows)
        is_well = hook and not plugins().failures and not without_task
        return Answer(data={**dict(rows), "lm_eval --tasks": tasks}, parts=[table], result=is_well)

    def present(self, args: argparse.Namespace, answer: Answer) -> int:
        """Print the findings."""
        super().present(args, answer)
        return int(not answer.result)
