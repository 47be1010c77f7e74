"""``lmsat probes new`` writes a package that is right as it is: its tests, its probe, its task and its figure."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from places import HELPERS
from probes_in_files import no_other_files as no_other_files
from warm_lmsat import shared

from lmsat_plugin import LmsatError, hookspecs
from lmsat_plugin.cli.main import main
from lmsat_plugin.probe_packages import use_package, write_package

if TYPE_CHECKING:
    from pathlib import Path

# Checks a package, and runs its tests, with forks in the place of processes that import torch again.
SCRIPT = """
import functools, sys
sys.path.insert(0, sys.argv[1])
import pytest
from forked_calls import ForkedCall
from lmsat_plugin import probe_checks
from lmsat_plugin.cli.main import main

probe_checks._start = lambda told: ForkedCall(functools.partial(probe_checks.measure_share, told))
codes = [main(["probes", "check", "mine_too"]), pytest.main(["-q", "-p", "no:cacheprovider", "mine_too"])]
raise SystemExit(1 if any(codes) else 0)
"""


@pytest.fixture
def package(tmp_path, monkeypatch, no_other_files) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return write_package("mine_too")


def test_a_new_package_passes_its_own_tests_and_the_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["probes", "new", "mine_too"]) == 0
    assert "pip install -e ./mine_too" in capsys.readouterr().out
    script = tmp_path / "try.py"
    script.write_text(f"import os; os.chdir({str(tmp_path)!r})\n{SCRIPT}")
    running = shared().start(str(script), str(HELPERS))
    assert running.wait() == 0, running.output
    assert "2 passed" in running.output
    assert "lmsat_mine_too: share 0." in running.output


def test_the_figure_of_a_new_package(package):
    assert use_package(package) == ["mine_too"]
    import lmsat_mine_too

    rows = [("lmsat_mine_too", "share", "m", step, 1 / (1 + step)) for step in (8, 0, 1)]
    rows += [("lmsat_loss", "loss", "m", 0, 5.0)]
    table = pd.DataFrame(rows, columns=["task", "metric", "model", "step", "value"])
    registry = hookspecs.FigureRegistry(table)
    lmsat_mine_too.lmsat_register_figures(registry)
    [figure] = registry.figures
    assert figure.alt.endswith("at step 8 of m it is 0.111.")
    [line] = figure.draw().axes[0].lines
    assert line.get_ydata().tolist() == [1, 0.5, 1 / 9]
    empty = hookspecs.FigureRegistry(table.tail(1))
    lmsat_mine_too.lmsat_register_figures(empty)
    assert empty.figures == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("[project.entry-points.lmsat]", "[project.other]"), "names no plugin"),
        (lambda text: text.replace('"lmsat_mine_too"', '"no_such_module"'), "no_such_module of .* does not import"),
        (lambda text: text + "]", "pyproject.toml cannot be read"),
    ],
)
def test_a_package_that_cannot_be_used(change, message, package):
    path = package / "pyproject.toml"
    path.write_text(change(path.read_text()))
    with pytest.raises(LmsatError, match=message):
        use_package(package)


def test_a_package_whose_hook_fails(package):
    path = package / "lmsat_mine_too" / "__init__.py"
    path.write_text(path.read_text().replace("registry.add(MineTooProbe)", "1 / 0"))
    sys.modules.pop("lmsat_mine_too", None)
    with pytest.raises(LmsatError, match="the plugin 'mine_too' of mine_too cannot be used: division by zero"):
        use_package(package)
    sys.modules.pop("lmsat_mine_too", None)
