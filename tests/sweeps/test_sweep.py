"""Sweeps: the same results as lm-eval's own, nothing measured twice, nothing lost, whatever goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from places import HELPERS, ROOT
from quiz import write_quiz
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file
from tiny_models import make_model

from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.checkpoint_evaluator import Series, quiet
from lmsat_plugin.model.restricted_head import save_restricted_head
from lmsat_plugin.sweeps import store as store_module
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.interrupts import Interrupts
from lmsat_plugin.sweeps.run import run_sweep
from lmsat_plugin.sweeps.store import Store, folder_name
from lmsat_plugin.yaml_files import SHIPPED


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    quiet()


@pytest.fixture
def save(tokenizer):
    """Return a function that saves a random checkpoint; another seed, other weights."""

    def save(folder: Path, seed: int, name: str = "gpt_neox") -> Path:
        # Written beside and moved, so that a folder is there only when it is whole.
        make_model(name, seed).save_pretrained(folder.with_name(f".{folder.name}"))
        tokenizer.save_pretrained(folder.with_name(f".{folder.name}"))
        folder.with_name(f".{folder.name}").rename(folder)
        return folder

    return save


@pytest.fixture
def run_folder(tmp_path, save) -> Path:
    """Return a folder with three checkpoints."""
    folder = tmp_path / "run"
    folder.mkdir()
    for index, step in enumerate((0, 10, 100)):
        save(folder / f"step{step}", index)
    return folder


@pytest.fixture
def quiz(tmp_path):
    """Return a function that writes the files of a multiple-choice task, and returns their folder."""

    return lambda version=1: write_quiz(tmp_path / "quiz", version=version)


@pytest.fixture
def configure(tmp_path, run_folder, corpus_file):
    """Return a function that writes a sweep's configuration; a None leaves a key out."""

    def write(**changes) -> Path:
        values = {
            "models": [str(run_folder)],
            "tasks": ["lmsat_loss", "lmsat_head"],
            "corpus": str(corpus_file),
            "max_tokens": 600,
            "output": str(tmp_path / "out"),
            "device": "cpu",
            **changes,
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}), "utf-8")
        return path

    return write


def files_of(output: Path) -> dict[str, dict]:
    """Return all result files by path below the output folder."""
    return {
        str(path.relative_to(output)): json.loads(path.read_text()) for path in output.rglob("results_*.json")
    }


def values_of(output: Path) -> dict[tuple, float]:
    """Return each value by checkpoint, task and metric; a value that is there twice is an error."""
    found: dict[tuple, float] = {}
    for path, document in files_of(output).items():
        for task, metrics in document["results"].items():
            for metric, value in metrics.items():
                if isinstance(value, float):
                    key = (*Path(path).parts[:-1], task, metric)
                    assert key not in found, key
                    found[key] = value
    return found


def strays(output: Path) -> list[Path]:
    return [p for p in output.rglob("*") if p.name.endswith(".part") or p.suffix == ".lock"]


def test_results_are_those_of_lm_eval(configure, quiz, run_folder, tmp_path):
    """Each checkpoint's, few-shot contexts included: none gets another's answers."""
    import lm_eval

    config = configure(
        tasks=["lmsat_*", "quiz"], include_path=str(quiz()), log_samples=True, batch_size=8, max_tokens=600
    )
    summary = run_sweep(load_config(config))
    assert (summary.measured, summary.failed) == (3, {})
    swept = files_of(tmp_path / "out")
    assert len(swept) == 3
    ours = [path.stem for path in (ROOT / "tasks").glob("lmsat_*.yaml")]
    accuracies = set()
    for path, document in swept.items():
        revision = Path(path).parts[1]
        manager = lm_eval.tasks.TaskManager(
            include_path=[str(quiz()), str(ROOT / "tasks")],
            include_defaults=False,
            metadata={"corpus": load_config(config).corpora[0].corpus, "max_tokens": 600},
        )
        alone = lm_eval.simple_evaluate(
            model="lmsat",
            model_args={"pretrained": str(run_folder / revision)},
            tasks=[*ours, "quiz"],
            task_manager=manager,
            device="cpu",
            batch_size=8,
        )
        for task, metrics in alone["results"].items():
            for metric, value in metrics.items():
                if isinstance(value, int | float):
                    assert document["results"][task][metric] == pytest.approx(value, rel=1e-9), (task, metric)
        for section in ("versions", "n-shot", "n-samples"):
            assert document[section] == alone[section]
        # A sweep adds the continuous metrics of multiple-choice tasks.
        for task, directions in alone["higher_is_better"].items():
            assert directions.items() <= document["higher_is_better"][task].items()
        assert document["results"]["quiz"]["correct_choice_prob_stderr,none"] > 0
        assert alone["n-shot"]["quiz"] == 2
        contexts = {sample["prompt_hash"] for sample in alone["samples"]["quiz"]}
        [samples] = (tmp_path / "out" / path).parent.glob("samples_quiz_*.jsonl")
        assert {json.loads(line)["prompt_hash"] for line in samples.read_text().splitlines()} == contexts
        assert document["config"]["model_args"] == {"pretrained": str(run_folder / revision)}
        assert document["configs"]["quiz"]["metadata"]["pretrained"] == str(run_folder / revision)
        assert document["config"]["lmsat"]["checkpoint"]["step"] == int(revision.removeprefix("step"))
        accuracies.add(document["results"]["lmsat_loss"]["loss,none"])
    assert len(accuracies) == 3


def test_nothing_is_measured_twice(configure, quiz, tmp_path):
    include = str(quiz())
    assert main(["sweep", str(configure())]) == 0
    first = files_of(tmp_path / "out")
    assert main(["sweep", str(configure())]) == 0
    assert files_of(tmp_path / "out") == first

    # A task that is added is the only one measured.
    config = configure(tasks=["lmsat_loss", "lmsat_head", "quiz"], include_path=include)
    assert main(["sweep", str(config)]) == 0
    second = files_of(tmp_path / "out")
    assert all(second[path] == document for path, document in first.items())
    assert [list(second[path]["results"]) for path in second.keys() - first.keys()] == [["quiz"]] * 3

    # Another number of tokens is another measurement, of what reads the corpus; the old one stays.
    config = configure(tasks=["lmsat_loss", "lmsat_head", "quiz"], include_path=include, max_tokens=300)
    assert main(["sweep", str(config)]) == 0
    third = files_of(tmp_path / "out")
    assert [list(third[path]["results"]) for path in third.keys() - second.keys()] == [["lmsat_loss"]] * 3

    # So is another window, another number of examples, and another version of a task.
    changed = {"tasks": ["lmsat_loss", "lmsat_head", "quiz"], "include_path": include, "max_tokens": 300}
    assert main(["sweep", str(configure(**changed, model_args={"max_length": 32}))]) == 0
    fourth = files_of(tmp_path / "out")
    tasks = sorted(task for path in fourth.keys() - third.keys() for task in fourth[path]["results"])
    assert tasks == ["lmsat_loss"] * 3 + ["quiz"] * 3
    assert main(["sweep", str(configure(**changed, num_fewshot=1))]) == 0
    fifth = files_of(tmp_path / "out")
    assert [fifth[path]["n-shot"] for path in fifth.keys() - fourth.keys()] == [{"quiz": 1}] * 3
    quiz(version=2)
    assert main(["sweep", str(configure(**changed))]) == 0
    sixth = files_of(tmp_path / "out")
    new = [sixth[path] for path in sixth.keys() - fifth.keys()]
    assert [document["versions"] for document in new] == [{"quiz": 2}] * 3
    assert all(document["config"]["lmsat"]["supersedes"] for document in new)

    # What only says how to run changes nothing.
    assert main(["sweep", str(configure(**changed, batch_size=2))]) == 0
    assert files_of(tmp_path / "out") == sixth
    assert main(["sweep", str(configure(**changed)), "--force"]) == 0
    assert len(files_of(tmp_path / "out")) == len(sixth) + 3


def test_groups_tags_and_files_are_tasks(configure, quiz, tmp_path):
    folder = quiz()
    text = (folder / "quiz.yaml").read_text()
    for name in ("left", "right"):
        (folder / f"{name}.yaml").write_text(text.replace("task: quiz", f"task: {name}\ntag: sides"))
    group = {"group": "both", "task": ["left", "right"], "metadata": {"version": 1}}
    group["aggregate_metric_list"] = [{"metric": "acc", "weight_by_size": True}]
    (folder / "both.yaml").write_text(yaml.safe_dump(group))
    (tmp_path / "lone.yaml").write_text(text.replace("task: quiz", "task: lone"))
    config = configure(tasks=["both", str(tmp_path / "lone.yaml")], include_path=str(folder))
    for _ in range(2):
        assert main(["sweep", str(config)]) == 0
        found = files_of(tmp_path / "out")
        assert len(found) == 3
        for document in found.values():
            assert set(document["results"]) == {"both", "left", "right", "lone"}
            score = document["results"]["both"]["acc,none"]
            assert score == pytest.approx(document["results"]["left"]["acc,none"])
    assert main(["sweep", str(config), "--force"]) == 0
    from lmsat_plugin import load_results

    assert len(set(load_results(tmp_path / "out").path)) == 3
    config = configure(tasks=["sides"], include_path=str(folder), output=str(tmp_path / "tagged"))
    assert main(["sweep", str(config)]) == 0
    assert all(set(d["results"]) == {"left", "right"} for d in files_of(tmp_path / "tagged").values())


def test_changed_weights_are_measured_anew(configure, save, run_folder, tmp_path):
    assert main(["sweep", str(configure())]) == 0
    first = files_of(tmp_path / "out")
    shutil.rmtree(run_folder / "step10")
    save(run_folder / "step10", 77)
    # Files that are only touched are read again, and found to be the same.
    os.utime(run_folder / "step0" / "model.safetensors", (1, 1))
    summary = run_sweep(load_config(configure()))
    assert (summary.measured, summary.done_before) == (1, 2)
    second = files_of(tmp_path / "out")
    [new] = second.keys() - first.keys()
    assert Path(new).parts[:2] == ("run", "step10")
    [old] = (path for path in first if "/step10/" in path)
    [(name, tasks)] = second[new]["config"]["lmsat"]["supersedes"].items()
    assert (name, sorted(tasks)) == (Path(old).name, ["lmsat_head", "lmsat_loss"])


def test_arrays_are_beside_the_results(configure, tmp_path):
    assert main(["sweep", str(configure())]) == 0
    for path, document in files_of(tmp_path / "out").items():
        arrays = load_file((tmp_path / "out" / path).parent / document["config"]["lmsat"]["arrays"])
        loss = document["results"]["lmsat_loss"]
        assert arrays["loss/by_document"].sum() / loss["tokens,none"] == pytest.approx(loss["loss,none"])


def test_a_failure_is_a_result(configure, run_folder, tmp_path, capsys):
    weights = run_folder / "step10" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    tensors = load_tensors(run_folder / "step100" / "model.safetensors")
    save_file({k: v * float("nan") for k, v in tensors.items()}, run_folder / "step100" / "model.safetensors")
    assert main(["sweep", str(configure())]) == 1
    out, err = capsys.readouterr()
    assert "1 measured, 0 done before, 2 failed" in out
    assert "model.safetensors is cut short" in err
    assert "Traceback" not in out + err
    assert set(files_of(tmp_path / "out")) == {p for p in files_of(tmp_path / "out") if "/step0/" in p}
    record = json.loads((tmp_path / "out/run/step10/failures.json").read_text())
    assert {failure["identity"]["task"] for failure in record["failures"]} == {"lmsat_loss", "lmsat_head"}

    # They are not tried again unless asked for, or mended.
    stamp = (tmp_path / "out/run/step10/failures.json").stat().st_mtime_ns
    assert main(["sweep", str(configure())]) == 1
    assert (tmp_path / "out/run/step10/failures.json").stat().st_mtime_ns == stamp
    assert main(["sweep", str(configure()), "--retry-failed"]) == 1
    assert (tmp_path / "out/run/step10/failures.json").stat().st_mtime_ns != stamp
    weights.write_bytes(whole)
    assert main(["sweep", str(configure())]) == 1
    assert not (tmp_path / "out/run/step10/failures.json").exists()
    assert len(list((tmp_path / "out/run/step10").glob("results_*.json"))) == 1


def test_one_failing_task_does_not_cost_the_others(configure, run_folder, tmp_path):
    """The head is zero: its spectrum has no value, and the loss has."""
    tensors = load_tensors(run_folder / "step10" / "model.safetensors")
    name = next(name for name in tensors if name in ("embed_out.weight", "lm_head.weight"))
    tensors[name][:, :] *= 0
    save_file(tensors, run_folder / "step10" / "model.safetensors")
    summary = run_sweep(load_config(configure()))
    assert list(summary.failed) == ["run step10"]
    found = files_of(tmp_path / "out")
    measured = [list(document["results"]) for path, document in found.items() if "/step10/" in path]
    assert measured == [["lmsat_loss"]]

    # A task that is added is measured, and what failed before still stands.
    summary = run_sweep(load_config(configure(tasks=["lmsat_*"])))
    assert list(summary.failed) == ["run step10"]
    [record] = (tmp_path / "out").rglob("failures.json")
    assert [failure["identity"]["task"] for failure in json.loads(record.read_text())["failures"]] == [
        "lmsat_head"
    ]
    assert len(list(record.parent.glob("results_*.json"))) == 2


def test_a_task_whose_data_is_not_there_ends_the_sweep(configure, quiz, tmp_path, capsys):
    """It would fail at every checkpoint: nothing is recorded, so that the sweep goes on once it is there."""
    folder = quiz()
    (folder / "train.jsonl").rename(folder / "away.jsonl")
    config = configure(tasks=["quiz"], include_path=str(folder))
    assert main(["sweep", str(config)]) == 2
    error = capsys.readouterr().err
    assert "the task 'quiz' cannot be loaded" in error
    assert error.count("\n") == 1
    (folder / "away.jsonl").rename(folder / "train.jsonl")
    assert main(["sweep", str(config)]) == 0


def test_identical_weights_are_reported(configure, run_folder, capsys):
    shutil.copytree(run_folder / "step10", run_folder / "step20")
    assert main(["sweep", str(configure())]) == 0
    assert "Identical weights: run step10, run step20" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["cut", "edited", "empty", "list"])
def test_a_damaged_result_is_put_aside_and_measured_again(configure, tmp_path, damage):
    assert main(["sweep", str(configure())]) == 0
    first = values_of(tmp_path / "out")
    [path] = (tmp_path / "out/run/step10").glob("results_*.json")
    text = path.read_text()
    value = json.loads(text)["results"]["lmsat_loss"]["loss,none"]
    damaged = {"cut": text[:900], "edited": text.replace(str(value), "0.5"), "empty": "", "list": "[]"}[
        damage
    ]
    path.write_text(damaged)
    assert main(["sweep", str(configure())]) == 0
    assert path.with_name(path.name + ".quarantined").read_text() == damaged
    assert values_of(tmp_path / "out") == first


def test_a_checkpoint_of_another_shape_or_tokenizer_in_the_series(configure, save, run_folder, tmp_path):
    save(run_folder / "step200", 5, "llama")
    save(run_folder / "step300", 6)
    assert main(["sweep", str(configure())]) == 0
    series = values_of(tmp_path / "out")
    for step in (200, 300):
        config = configure(models=[str(run_folder / f"step{step}")], output=str(tmp_path / f"alone{step}"))
        assert main(["sweep", str(config)]) == 0
        alone = values_of(tmp_path / f"alone{step}")
        assert {key: value for key, value in series.items() if key[1] == f"step{step}"} == alone


def test_names_from_outside_are_safe(configure, save, tmp_path, capsys):
    hostile = ["a'b", '"><script>alert(1)</script>', "..", "sp ace", "x; rm -rf y"]
    folder = tmp_path / 'run "<b>..'
    folder.mkdir()
    names = [name.replace("/", "∕") for name in hostile if name != ".."]
    for index, name in enumerate(names):
        save(folder / name, index)
    config = configure(models=[{"pretrained": str(folder), "name": "../../<i>x"}], tasks=["lmsat_head"])
    assert main(["sweep", str(config)]) == 0
    written = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("results_*.json")]
    assert len(written) == len(names)
    assert all(len(path.parts) == 3 and not set(str(path)) & set("<>'\" ;") for path in written)
    capsys.readouterr()
    assert main(["results", str(tmp_path / "out"), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["revision"] for row in rows} == set(names)
    assert {row["model"] for row in rows} == {"../../<i>x"}


def test_folder_names_differ_where_names_do():
    names = ["a/b", "a//b", "a b", "a_b", "..", ".", "A" * 300, "A" * 301, "ä", "step1", "x/../y"]
    assert len({folder_name(name) for name in names}) == len(names)
    assert all(name == Path(name).name and len(name) < 120 for name in map(folder_name, names))
    assert folder_name("EleutherAI/pythia-14m") == "EleutherAI__pythia-14m"
    assert folder_name("step1000") == "step1000"


def test_clocks_that_go_back_lose_nothing(configure, tmp_path, monkeypatch):
    class Stopped(store_module.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(1999, 12, 31)

    monkeypatch.setattr(store_module, "datetime", Stopped)
    assert main(["sweep", str(configure())]) == 0
    for _ in range(2):
        assert main(["sweep", str(configure()), "--force"]) == 0
    found = files_of(tmp_path / "out")
    assert len(found) == 9
    from lmsat_plugin import load_results

    table = load_results(tmp_path / "out")
    last = max(path for path in found if "/step0/" in path)
    assert set(table[table.revision == "step0"].path) == {last}


def test_head_alone_is_read_for_what_needs_no_more(configure, run_folder, tmp_path, monkeypatch):
    assert (
        main(["sweep", str(configure(tasks=["lmsat_head", "lmsat_anisotropy"], output=str(tmp_path / "a")))])
        == 0
    )

    def no_whole(*args):
        raise AssertionError("the whole checkpoint was loaded")

    monkeypatch.setattr("lmsat_plugin.harness.model.SaturationLM._create_model", no_whole)
    assert main(["sweep", str(configure(tasks=["lmsat_head"], output=str(tmp_path / "b")))]) == 0
    whole, alone = values_of(tmp_path / "a"), values_of(tmp_path / "b")
    assert alone
    assert all(whole[key] == pytest.approx(value, rel=1e-12) for key, value in alone.items())


def test_a_whole_checkpoint_after_one_of_which_only_the_head_was_wanted(configure, tmp_path):
    assert main(["sweep", str(configure(tasks=["lmsat_loss"])), "--only", "run@step0"]) == 0
    assert main(["sweep", str(configure())]) == 0
    assert main(["sweep", str(configure(output=str(tmp_path / "fresh")))]) == 0
    mixed, fresh = values_of(tmp_path / "out"), values_of(tmp_path / "fresh")
    assert mixed.keys() == fresh.keys()
    assert all(mixed[key] == pytest.approx(value, rel=1e-12) for key, value in fresh.items())


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama", "gemma2", "cohere", "opt_narrow", "gptj"])
def test_head_alone_is_the_whole_models(checkpoint, name):
    """Tied and untied heads, under the names that each architecture stores them by."""
    from transformers import AutoModelForCausalLM

    from lmsat_plugin.model.head_only import load_head

    whole = AutoModelForCausalLM.from_pretrained(checkpoint(name)).get_output_embeddings().weight
    assert torch.equal(load_head(checkpoint(name)).get_output_embeddings().weight, whole)


def test_memory_that_does_not_suffice_halves_the_batch(configure, tmp_path, monkeypatch):
    sizes = []
    evaluate = Series.evaluate.__globals__["simple_evaluate"]

    def greedy(model, **kwargs):
        sizes.append(model.batch_size_per_gpu)
        if model.batch_size_per_gpu > 2:
            raise RuntimeError("CUDA out of memory")
        return evaluate(model=model, **kwargs)

    monkeypatch.setitem(Series.evaluate.__globals__, "simple_evaluate", greedy)
    assert main(["sweep", str(configure(batch_size=8))]) == 0
    assert sizes[:3] == [8, 4, 2]
    monkeypatch.setitem(
        Series.evaluate.__globals__,
        "simple_evaluate",
        lambda **kwargs: (_ for _ in ()).throw(RuntimeError("CUDA out of memory")),
    )
    summary = run_sweep(load_config(configure(output=str(tmp_path / "other"))))
    assert all("memory does not suffice" in reason for reason in summary.failed.values())
    assert len(summary.failed) == 3


def test_a_full_disk_ends_the_sweep_with_one_sentence(configure, tmp_path, monkeypatch, capsys):
    write = store_module.write_atomically

    def full(path, data):
        if "step10" in str(path):
            raise LmsatError(f"cannot write {path} (No space left on device): free space")
        write(path, data)

    monkeypatch.setattr(store_module, "write_atomically", full)
    assert main(["sweep", str(configure())]) == 2
    assert capsys.readouterr().err.count("lmsat: error: cannot write") == 1
    assert len(files_of(tmp_path / "out")) == 1
    assert not strays(tmp_path / "out")
    monkeypatch.undo()
    assert main(["sweep", str(configure())]) == 0
    assert len(files_of(tmp_path / "out")) == 3


def test_an_output_that_cannot_be_written(configure, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["sweep", str(configure(output=str(tmp_path / "file" / "out")))]) == 2
    error = capsys.readouterr().err
    assert "cannot write to" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tasks": ["lmsat_los"]}, "did you mean lmsat_loss?"),
        ({"tasks": ["no_such_task_at_all"]}, "no task is named"),
        ({"corpus": "no/such/file.txt"}, "no/such/file.txt"),
        ({"models": ["/no/such/folder"]}, "there is no such folder"),
        ({"metadata": {"max_tokns": 5}}, "max_tokns"),
        ({"model_args": {"revision": "main"}}, "'revision' is the sweep's business"),
        ({"trackers": {"wandbee": {}}}, "wandbee"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is_measured(configure, tmp_path, capsys, changes, says):
    assert main(["sweep", str(configure(**changes))]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not files_of(tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "models: [x]\ntasks: [y]\noutput: z\nbach_size: 3\n",
            "line 4: unknown key 'bach_size': did you mean 'batch_size'?",
        ),
        (
            "models:\n  - pretrained: x\n    revision: main\ntasks: y\noutput: z\n",
            "line 3: unknown key 'revision'",
        ),
        ("models: [x]\ntasks: y\noutput: z\nmax_tokens: many\n", "line 4: max_tokens: many is not right"),
        ("models: [x]\ntasks: y\noutput: z\nslurm:\n  time: -1\n", "line 5: time: -1 is not right"),
        ("models: [x]\ntasks: y\n", "the key 'output' is missing"),
        ("models: [x]\ntasks: y\noutput: z\nkeep: [\n", "no valid YAML"),
        ("models: [x]\ntasks: y\noutput: z\ncorpus: a\ncorpora: [b]\n", "line 5: give `corpus` or `corpora`"),
        ("nothing", "is not a list of `key: value` lines"),
    ],
)
def test_a_wrong_configuration_is_named_with_its_line(tmp_path, text, says):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(LmsatError) as raised:
        load_config(path)
    assert says in str(raised.value)


def test_shipped_configurations_are_valid():
    sweeps = [path for path in SHIPPED.glob("*.yaml") if "lmsat sweep" in path.read_text()]
    assert {path.stem for path in sweeps} >= {"demo", "pythia", "folder", "slurm", "olmo"}
    for path in sweeps:
        assert load_config(path).tasks


def test_a_head_or_a_text_to_train_on_that_was_replaced_is_measured_anew(
    configure, tmp_path, corpus_file, capsys
):
    head, text = tmp_path / "head.safetensors", tmp_path / "train.txt"
    config = str(
        configure(
            model_args={"head": str(head)},
            tasks=["lmsat_loss", "lmsat_rank_head"],
            metadata={"ranks": [4], "train_tokens": 1100, "train_corpus": str(text)},
        )
    )
    text.write_text("Some words to train on, which are not those that are measured. " * 200)
    assert main(["sweep", config, "--only", "run@step10"]) == 2
    assert f"head={head} cannot be read (No such file or directory)" in capsys.readouterr().err

    def measured() -> list[set[str]]:
        assert main(["sweep", config, "--only", "run@step10"]) == 0
        paths = sorted((tmp_path / "out").rglob("results_*.json"))
        return [set(json.loads(path.read_text())["results"]) for path in paths]

    save_restricted_head(head, torch.ones(576, 3), torch.ones(3, 48), {})
    assert measured() == measured() == [{"lmsat_loss", "lmsat_rank_head"}]
    text.write_text("Others. " * 2000)
    assert measured()[1:] == [{"lmsat_rank_head"}]
    save_restricted_head(head, torch.ones(576, 2), torch.ones(2, 48), {})
    assert measured()[2:] == [{"lmsat_loss", "lmsat_rank_head"}]


def test_overrides_and_shards_and_one_checkpoint(configure, tmp_path, capsys):
    config = str(configure())
    assert main(["sweep", config, "tasks=lmsat_head", "--shard", "2/3"]) == 0
    assert [Path(path).parts[1] for path in files_of(tmp_path / "out")] == ["step10"]
    assert main(["sweep", config, "--only", "run@step100", "tasks=[lmsat_head]"]) == 0
    assert sorted(Path(path).parts[1] for path in files_of(tmp_path / "out")) == ["step10", "step100"]
    assert main(["sweep", config, "--only", "run@step7"]) == 2
    assert main(["sweep", config, "bach_size=3"]) == 2
    assert (
        "on the command line: unknown key 'bach_size': did you mean 'batch_size'?" in capsys.readouterr().err
    )


def test_dry_run_writes_nothing(configure, tmp_path, capsys):
    assert main(["sweep", str(configure()), "--dry-run"]) == 0
    assert not (tmp_path / "out").exists()
    assert main(["sweep", str(configure()), "--only", "run@step10"]) == 0
    capsys.readouterr()
    assert main(["sweep", str(configure()), "--dry-run"]) == 0
    [row] = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["run"]]
    assert row == ["run", "3", "6", "2", "0", "4", "0"]


@pytest.fixture
def start():
    """Return a function that starts a sweep in a process of its own, which does not outlive the test."""
    started = []

    def start(config: Path, *arguments: str) -> subprocess.Popen:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "lmsat_plugin.cli", "sweep", str(config), *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_sweeps_at_once_share_the_work(start, configure, save, run_folder, tmp_path):
    for step in range(200, 1000, 100):
        save(run_folder / f"step{step}", step)
    config = configure()
    both = [start(config), start(config)]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len(files_of(tmp_path / "out")) == 11
    values_of(tmp_path / "out")
    assert not strays(tmp_path / "out")


@pytest.mark.parametrize("at_once", [1, 2])
def test_killed_at_any_instant_and_started_again(configure, save, run_folder, tmp_path, at_once):
    """The results are those of a sweep that nobody killed. LMSAT_TEST_KILLS says how often (50, to be sure)."""
    for step in range(200, 600, 100):
        save(run_folder / f"step{step}", step)
    kills = os.environ.get("LMSAT_TEST_KILLS", "6")
    script = HELPERS / "kill_sweep.py"
    config = configure(tasks=["lmsat_*"])
    done = subprocess.run(
        [sys.executable, str(script), str(config), kills, str(at_once)],
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    unkilled = tmp_path / "unkilled"
    assert main(["sweep", str(configure(tasks=["lmsat_*"], output=str(unkilled)))]) == 0
    assert values_of(tmp_path / "out") == values_of(unkilled)
    assert not strays(tmp_path / "out")
    for path in (tmp_path / "out").rglob("arrays_*.safetensors"):
        assert path.with_name(path.name.replace("arrays_", "results_")).with_suffix(".json").exists()


def test_ctrl_c_keeps_what_is_measured_and_says_how_to_go_on(start, configure, save, run_folder, tmp_path):
    for step in range(200, 3000, 100):
        save(run_folder / f"step{step}", step)
    process = start(configure(max_tokens=3000))
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "Go on with: lmsat sweep" in out
    assert "Traceback" not in out
    assert 1 <= len(files_of(tmp_path / "out")) < 30
    assert not strays(tmp_path / "out")


def test_an_interrupt_waits_for_the_write():
    interrupts, seen = Interrupts(), []

    def write():
        with interrupts.handled(), interrupts.held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            seen.append("written")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert seen == ["written"]


def test_workers_share_the_work_and_one_that_is_killed_is_replaced(
    start, configure, save, run_folder, tmp_path
):
    for step in range(200, 900, 100):
        save(run_folder / f"step{step}", step)
    process = start(configure(), "--executor", "processes", "--workers", "2")
    assert process.stdout is not None
    process.stdout.readline()
    claims = [json.loads(p.read_text()) for p in (tmp_path / "out").rglob("*.lock") if p.stat().st_size]
    os.kill(claims[0]["pid"], signal.SIGKILL)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert "was killed" in out
    assert len(files_of(tmp_path / "out")) == 10
    values_of(tmp_path / "out")
    assert not strays(tmp_path / "out")

    # Workers that measure all again do so once, and a checkpoint that fails is tried by one of them.
    (run_folder / "step10" / "model.safetensors").write_bytes(b"")
    process = start(configure(), "--executor", "processes", "--workers", "2", "--force")
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 1, out
    assert out.count("failed: ") == 1, out
    assert len(files_of(tmp_path / "out")) == 19


def test_a_launch_of_two_processes_gives_the_values_of_one(configure, quiz, run_folder, tmp_path):
    """One checkpoint fails on both: it is recorded once, and they go on together."""
    weights = run_folder / "step10" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    tasks = {"tasks": ["lmsat_*", "quiz"], "include_path": str(quiz()), "batch_size": 4}
    assert main(["sweep", str(configure(**tasks, output=str(tmp_path / "one")))]) == 1
    config = configure(**tasks, device=None)
    launcher = ["torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d"]
    launcher += ["--rdzv_endpoint=localhost:0", "-m", "lmsat_plugin.cli"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "sweep", str(config)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "2 measured, 0 done before, 1 failed" in done.stdout, done.stdout + done.stderr[-3000:]
    assert done.stdout.count("Checkpoints: ") == 1
    one, two = values_of(tmp_path / "one"), values_of(tmp_path / "out")
    assert one.keys() == two.keys()
    assert all(two[key] == pytest.approx(value, rel=1e-6) for key, value in one.items())
    assert len(list((tmp_path / "out").rglob("failures.json"))) == 1


def test_watch_measures_checkpoints_as_they_appear(start, configure, save, run_folder, tmp_path):
    aside = run_folder.rename(tmp_path / "aside")
    process = start(configure(), "--watch", "0.3")
    assert process.stdout is not None
    # The folder is not there yet: it says so, and waits.
    assert "Waiting: pretrained=" in process.stdout.readline()

    def wait_for(step: int, name: str, there: bool = True) -> None:
        deadline = time.monotonic() + 100
        while bool(list((tmp_path / "out").rglob(f"run/step{step}/{name}"))) != there:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    run_folder.mkdir()
    (aside / "step0").rename(run_folder / "step0")
    wait_for(0, "results_*.json")
    # One that rests half written is a failure, until it is whole.
    whole = (aside / "step10" / "model.safetensors").read_bytes()
    (aside / "step10" / "model.safetensors").write_bytes(whole[:5000])
    (aside / "step10").rename(run_folder / "step10")
    wait_for(10, "failures.json")
    (run_folder / "step10" / "model.safetensors").write_bytes(whole)
    wait_for(10, "results_*.json")
    wait_for(10, "failures.json", there=False)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert {Path(path).parts[1] for path in files_of(tmp_path / "out")} == {"step0", "step10"}


def test_claims_are_exclusive_and_freed(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    claim = store.claim("m", "r")
    assert claim is not None
    assert store.claim("m", "r") is None
    assert store.claim("m", "other") is not None
    claim.release()
    again = store.claim("m", "r")
    assert again is not None
    again.release()
