"""``lmsat probes new``: a package with a probe, its task, a figure and tests; and packages that are not installed."""

from __future__ import annotations

import importlib
import keyword
import sys
import tomllib
from pathlib import Path

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import kind_of, read_file, write_atomically
from lmsat_plugin.plugin_code import contained
from lmsat_plugin.plugins import plugins
from lmsat_plugin.probe_files import TASK

_PROJECT = """[build-system]
requires = ["hatchling>=1.24"]
build-backend = "hatchling.build"

[project]
name = "lmsat-@NAME@"
version = "0.1.0"
description = "A probe for lmsat: @NAME@."
requires-python = ">=3.11"
dependencies = ["lmsat-plugin"]

[project.entry-points.lmsat]
@NAME@ = "lmsat_@NAME@"

[tool.pytest.ini_options]
pythonpath = ["."]
"""

_HOOKS = '''"""The plugin: which probe it adds, and which figure."""

from lmsat_plugin import FigureRegistry, ProbeRegistry, ReportFigure, hookimpl


@hookimpl
def lmsat_register_probes(registry: ProbeRegistry) -> None:
    """Add the probe of the task ``lmsat_@NAME@``."""
    from lmsat_@NAME@.probe import @CLASS@

    registry.add(@CLASS@)


@hookimpl
def lmsat_register_figures(registry: FigureRegistry) -> None:
    """Add the share by training step to reports of results that have it."""
    rows = registry.results[registry.results.task == "lmsat_@NAME@"]
    rows = rows[(rows.metric == "share") & rows.step.notna()].sort_values("step")
    if rows.empty:
        return

    def draw():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel="training step", ylabel="share of surprising tokens", xscale="symlog")
        for model, line in rows.groupby("model"):
            axes.plot(line.step.astype(float), line.value, marker="o", label=model)
        axes.legend()
        return figure

    last = rows.iloc[-1]
    registry.add(
        ReportFigure(
            name="@NAME@",
            title="Share of surprising tokens",
            source="",
            alt=f"The share by training step; at step {last.step} of {last.model} it is {last.value:.3f}.",
            draw=draw,
            panels=[("lmsat_@NAME@", "share")],
        )
    )
'''

_PROBE = '''"""The probe: replace what it measures by what you want to know."""

import torch

from lmsat_plugin import Measurement, Need, Probe, ProbeContext, Settings, Sums, TokenBatch


class @CLASS@Settings(Settings):
    """What ``--metadata`` can set."""

    threshold: float = 5.0
    """Tokens with a loss above it, in nats, are surprising."""


class @CLASS@(Probe[@CLASS@Settings]):
    """Share of tokens that surprise the model."""

    name = "@NAME@"
    needs = Need.TOKEN_LOSSES
    settings_type = @CLASS@Settings

    def start(self, context: ProbeContext) -> None:
        """Make the sums empty."""
        self.sums = Sums(context, surprising=(), tokens=())

    def update_losses(self, losses_N: torch.Tensor, batch: TokenBatch) -> None:
        """Add a batch's tokens."""
        self.sums.update(surprising=(losses_N > self.settings.threshold).sum(), tokens=len(losses_N))

    def finish(self) -> Measurement:
        """Divide once, when all is added up."""
        sums = self.sums.totals()
        return Measurement({"share": float(sums["surprising"] / sums["tokens"])})
'''

_TEST = '''"""The probe does not depend on batches and processes, and is right where its value is known."""

import pytest
import torch
from lmsat_@NAME@.probe import @CLASS@

from lmsat_plugin import check_probe, measure, tiny_model

TEXT = "A text, which is short."


def test_it_does_not_depend_on_batches_and_processes():
    check_probe(@CLASS@())


def test_its_value():
    model, tokenizer = tiny_model()
    measured = measure(model, [@CLASS@()], corpus=[TEXT], tokenizer=tokenizer)
    tokens = torch.tensor([tokenizer.bos_token_id, *tokenizer.encode(TEXT)])
    with torch.no_grad():
        logits = model(tokens[None, :-1]).logits[0]
    losses = torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="none")
    assert measured.metrics["lmsat_@NAME@/share"] == pytest.approx(float((losses > 5).double().mean()))
'''

_FILES = {
    "pyproject.toml": _PROJECT,
    "lmsat_@NAME@/__init__.py": _HOOKS,
    "lmsat_@NAME@/probe.py": _PROBE,
    "lmsat_@NAME@/tasks/lmsat_@NAME@.yaml": TASK.format(task="lmsat_@NAME@", name="@NAME@"),
    "tests/test_probe.py": _TEST,
}


def write_package(name: str, place: Path = Path()) -> Path:
    """Write a package with a probe into a new folder of its name, and return the folder.

    Raises `LmsatError` for what is no name in Python, and for a name that a probe or a file has already.
    """
    if not (name.isidentifier() and name.isascii() and name == name.lower()) or keyword.iskeyword(name):
        raise LmsatError(f"{name!r} cannot be a probe's name: give small letters, digits and _, as in my_probe")
    if name in plugins().probes:
        origin = plugins().origins[f"probe:{name}"]
        raise LmsatError(f"a probe named '{name}' is there already ({origin}): give yours another name")
    folder = place / name
    if kind_of(folder) is not None:
        raise LmsatError(f"{folder} is there already: give the probe another name, or go to another folder")
    camel = "".join(part.capitalize() for part in name.split("_")) + "Probe"
    for path, text in _FILES.items():
        content = text.replace("@NAME@", name).replace("@CLASS@", camel)
        write_atomically(folder / path.replace("@NAME@", name), content.encode())
    return folder


def use_package(folder: Path) -> list[str]:
    """Use the plugin of a package that is not installed, and return the names of its probes.

    Raises `LmsatError` for a folder without one, and for one that does not import or cannot be used.
    """
    path = folder / "pyproject.toml"
    try:
        project = tomllib.loads(read_file(path).decode()).get("project", {})
    except (OSError, ValueError) as error:
        raise LmsatError(f"{path} cannot be read ({first_sentence(error)}): give the folder of a package") from error
    entries = project.get("entry-points", {}).get("lmsat", {})
    if not entries:
        raise LmsatError(f"{path} names no plugin: add it below [project.entry-points.lmsat]")
    before = set(plugins().probes)
    sys.path.insert(0, str(folder.absolute()))
    importlib.invalidate_caches()
    for name, module in entries.items():
        try:
            with contained():
                plugin = importlib.import_module(module)
        except Exception as error:
            raise LmsatError(f"{module} of {folder} does not import ({first_sentence(error)}): correct it") from error
        plugins().register(plugin, name, f"{folder.name} (not installed)")
        found = set(plugins().probes) - before
        if reason := plugins().failures.get(name):
            raise LmsatError(f"the plugin '{name}' of {folder} cannot be used: {reason}")
    return sorted(found)
