"""The start-up hook: it costs nothing, can be switched off, and adds one lazy model and one folder of tasks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from places import ROOT

HEAVY = ("torch", "transformers", "lm_eval", "lmsat_plugin", "yaml", "importlib.metadata")
TASKS = ["lmsat_anisotropy", "lmsat_head", "lmsat_loss"]


def python(code: str, *options: str, **environment: str) -> subprocess.CompletedProcess:
    """Run code in an interpreter of its own, from another folder than the checkout."""
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**os.environ, **environment}, cwd="/", capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def result_of(expression: str, imports: str = "", **environment: str):
    """Return the value of an expression in an interpreter of its own, through JSON."""
    code = f"import sys, json\n{imports}\nprint(json.dumps({expression}))"
    done = python(code, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def hooked(**environment: str) -> bool:
    return result_of("any(type(f).__module__ == 'lmsat_autoload' for f in sys.meta_path)", **environment)


def test_start_of_python_imports_nothing_heavy():
    imported = result_of("sorted(sys.modules)")
    assert "lmsat_autoload" in imported
    # What the same interpreter imports anyway is no cost of ours.
    anyway = set(result_of("sorted(sys.modules)", LMSAT_AUTOLOAD="0"))
    assert set(imported) <= anyway
    assert not set(HEAVY) & set(imported)


def test_hook_is_switched_off_by_the_environment():
    assert hooked()
    assert hooked(LMSAT_AUTOLOAD="1")
    assert not hooked(LMSAT_AUTOLOAD="0")


IMPORTS = "import lm_eval.models; from lm_eval.api.registry import model_registry"
REGISTERED = "['lmsat' in model_registry, 'lmsat' in lm_eval.models.MODEL_MAPPING, 'lmsat_plugin' in sys.modules]"


def test_hook_is_in_time_after_the_import():
    """Imported by hand, as `lmsat eval` does, when lm-eval is there already."""
    code = f"""
{IMPORTS}
before = {REGISTERED}
import os; os.environ.pop('LMSAT_AUTOLOAD'); import importlib, lmsat_autoload
lmsat_autoload.install(); lmsat_autoload.install()
"""
    before, after = result_of(f"[before, {REGISTERED}]", code, LMSAT_AUTOLOAD="0")
    # A later lm-eval registers the model itself, from the entry point.
    assert before[1:] == [False, False]
    assert after == [True, True, False]


@pytest.fixture(scope="module")
def lm_eval(checkpoint, tmp_path_factory) -> tuple[dict[str, list], subprocess.CompletedProcess]:
    """Return what lm-eval finds in an interpreter of its own, and how its command ends on a checkpoint that is cut.

    All in one, for imports and lm-eval's index are slow.
    """
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.yaml").write_text("task: mine\ndataset_path: json\noutput_type: loglikelihood_rolling\n")
    (folder / "loss.yaml").write_text("task: lmsat_loss\ndataset_path: json\noutput_type: loglikelihood_rolling\n")
    broken = shutil.copytree(checkpoint("gpt_neox"), tmp_path_factory.mktemp("cut") / "model")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    words = ["lm_eval", "run", "--model", "lmsat", "--tasks", "lmsat_anisotropy", "--device", "cpu"]
    words += ["--model_args", f"pretrained={broken},arrays={broken.parent}/arrays", "--metadata", "max_tokens=100"]
    code = f"""
import json, sys
{IMPORTS}
registered = {REGISTERED}
import lm_eval.tasks
default = lm_eval.tasks.TaskManager(include_path={str(folder)!r})
alone = lm_eval.tasks.TaskManager(include_defaults=False, include_path={str(folder)!r})
found = dict(registered=registered, default=default.all_tasks, alone=alone.all_tasks)
found |= dict(glob=default.match_tasks(["lmsat_*"]), loss=str(default.task_index["lmsat_loss"].yaml_path))
print(json.dumps(dict(found, heavy="lmsat_plugin" in sys.modules)), flush=True)
lm_eval.tasks.TaskManager = lambda **_: default
sys.argv = {[*words, "--output_path", str(broken.parent / "out")]!r}
from lm_eval.__main__ import cli_evaluate
cli_evaluate()
"""
    done = python(code)
    assert done.stdout, done.stderr
    written = [path for path in broken.parent.rglob("*") if path.is_file() and path.parent != broken]
    assert not written
    return json.loads(done.stdout.splitlines()[0]), done


def test_model_is_registered_lazily(lm_eval):
    assert lm_eval[0]["registered"] == [True, True, False]


def test_task_manager_finds_our_tasks(lm_eval):
    found = lm_eval[0]
    assert {"hellaswag", "wikitext", "mine", *TASKS} <= set(found["default"])
    assert set(TASKS) <= set(found["glob"])
    assert not found["heavy"], "our modules are imported when a task is loaded"


def test_task_manager_without_defaults_finds_none_of_ours(lm_eval):
    assert lm_eval[0]["alone"] == ["lmsat_loss", "mine"]


def test_folder_of_the_user_comes_after_ours(lm_eval):
    """A user's own file of the same name counts."""
    assert lm_eval[0]["loss"].endswith("loss.yaml")
    assert not lm_eval[0]["loss"].startswith(str(ROOT))


def test_the_command_says_in_one_sentence_what_is_wrong(lm_eval):
    done = lm_eval[1]
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    [line] = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("lmsat")]
    assert "model/model.safetensors" in line
    assert "copy or download it again" in line


LINE = (ROOT / "lmsat_autoload.pth").read_text("utf-8")


def test_line_of_the_pth_file_is_one_and_begins_with_import():
    """Python runs a line of a .pth file only if it begins with this word; others are paths."""
    assert LINE.startswith("import ")
    assert len(LINE.splitlines()) == 1


@pytest.mark.parametrize("there", [True, False])
def test_line_of_the_pth_file_without_the_module(tmp_path, there):
    """As after an incomplete removal of the package: Python starts without a word."""
    if there:
        (tmp_path / "lmsat_autoload.py").write_text((ROOT / "lmsat_autoload.py").read_text())
    (tmp_path / "lmsat_autoload.pth").write_text(LINE)
    # -I and -S: no package of this environment is found.
    code = f"import site, sys; site.addsitedir({str(tmp_path)!r}); print('lmsat_autoload' in sys.modules)"
    done = python(code, "-I", "-S")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(there), "")


def test_lm_eval_of_another_layout_is_left_as_it_is(tmp_path):
    """The hook says so in one line, and lm-eval goes on."""
    package = tmp_path / "lm_eval" / "tasks"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package.parent / "models.py").write_text("answer = 42")
    (package / "__init__.py").touch()
    (package / "manager.py").write_text("answer = 43")
    code = "import lm_eval.models, lm_eval.tasks.manager as manager; print(lm_eval.models.answer, manager.answer)"
    done = python(code, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout.strip()) == (0, "42 43")
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("lmsat: this lm_eval is not supported (lm_eval.") for line in lines)
