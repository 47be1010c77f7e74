"""Commands that read results, and sweeps that are asked for wrongly, do not wait for torch, transformers or lm-eval."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from result_trees import Made, write_tree
from safetensors.numpy import save_file

from lmsat_plugin.text.sample import sample_documents

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


REFUSED = """
import json, sys
from lmsat_plugin.cli.main import main
for words in json.loads(sys.argv[1]):
    assert main(["sweep", *words]) == 2, words
print("heavy:", *sorted({"torch", "transformers", "lm_eval", "datasets"} & sys.modules.keys()))
"""


def test_arguments_of_a_sweep_that_are_wrong_are_refused_before_anything_heavy_is_imported(tmp_path):
    (tmp_path / "run/step1").mkdir(parents=True)
    (tmp_path / "run/step1/config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.yaml").write_text("models: x")
    wrong = [
        *([], ["a b"], ["./ran"], ["empty"], ["none.yaml"], ["lr=3"], ["run", "there.yaml"], ["there.yaml"]),
        *(["run", "bach_size=1"], ["run", "max_tokens=x"], ["run", "--save", "there.yaml"], ["run", "--tasks", ","]),
        *(["run", "--watch", "0"], ["run", "--watch", "--executor", "slurm"], ["run", "corpus=a", "--corpus", "b"]),
    ]
    arguments = [sys.executable, "-c", REFUSED, json.dumps(wrong)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "heavy:"


PLANNED = """
import sys
from lmsat_plugin.cli.main import main
assert main(["sweep", "run", "--dry-run"]) == 0
heavy = {"torch", "torchmetrics", "transformers", "lm_eval", "datasets", "pandas", "scipy.signal", "pydoc_data"}
print("heavy:", *sorted(heavy & sys.modules.keys()))
"""


def test_a_plan_of_lmsats_own_tasks_imports_nothing_that_only_measuring_needs(tmp_path):
    """Nor is the sample text read from the standard library anew."""
    sample_documents()
    for step in (1, 8):
        (tmp_path / f"run/step{step}").mkdir(parents=True)
        (tmp_path / f"run/step{step}/config.json").write_text("{}")
        save_file({"weight": np.zeros(3)}, tmp_path / f"run/step{step}/model.safetensors")
    done = subprocess.run([sys.executable, "-c", PLANNED], capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "run" in done.stdout
    assert done.stdout.splitlines()[-1] == "heavy:"
