"""Commands that read results do not wait for torch, transformers or lm-eval."""

from __future__ import annotations

import subprocess
import sys

import pytest
from result_trees import Made, write_tree

CODE = """
import sys
from lmsat_plugin.cli.main import main
assert main(sys.argv[1:]) == 0
print("heavy:", *sorted({"torch", "transformers", "lm_eval", "datasets"} & sys.modules.keys()))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_tree(folder, [Made("org/m-1m", 10**6)], steps=(1, 16, 256, 1000))
    return folder


@pytest.mark.parametrize("command", ["results", "saturation", "leaderboard", "report", "verify"])
def test_commands_that_read_results_import_neither_torch_nor_lm_eval(command, tree, tmp_path):
    options = ["--output", str(tmp_path / "report")] if command == "report" else []
    arguments = [sys.executable, "-c", CODE, command, str(tree), *options]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "heavy:"
