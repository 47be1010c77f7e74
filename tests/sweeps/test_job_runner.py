"""One checkpoint after another: the same results as lm-eval's own, whatever goes wrong with one of them."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from places import ROOT
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file
from sweep_outputs import files_of, values_of

from lmsat_plugin.cli.main import main
from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.local import run_sweep


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
    assert [failure["identity"]["task"] for failure in json.loads(record.read_text())["failures"]] == ["lmsat_head"]
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


def test_head_alone_is_read_for_what_needs_no_more(configure, run_folder, tmp_path, monkeypatch):
    assert main(["sweep", str(configure(tasks=["lmsat_head", "lmsat_anisotropy"], output=str(tmp_path / "a")))]) == 0

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

    from lmsat_plugin.model.loading import load_head

    whole = AutoModelForCausalLM.from_pretrained(checkpoint(name)).get_output_embeddings().weight
    assert torch.equal(load_head(checkpoint(name)).get_output_embeddings().weight, whole)


def test_memory_that_does_not_suffice_halves_the_batch(configure, tmp_path, monkeypatch):
    sizes = []
    evaluate = CheckpointEvaluator.evaluate.__globals__["simple_evaluate"]

    def greedy(model, **kwargs):
        sizes.append(model.batch_size_per_gpu)
        if model.batch_size_per_gpu > 2:
            raise RuntimeError("CUDA out of memory")
        return evaluate(model=model, **kwargs)

    monkeypatch.setitem(CheckpointEvaluator.evaluate.__globals__, "simple_evaluate", greedy)
    assert main(["sweep", str(configure(batch_size=8))]) == 0
    assert sizes[:3] == [8, 4, 2]
    monkeypatch.setitem(
        CheckpointEvaluator.evaluate.__globals__,
        "simple_evaluate",
        lambda **kwargs: (_ for _ in ()).throw(RuntimeError("CUDA out of memory")),
    )
    summary = run_sweep(load_config(configure(output=str(tmp_path / "other"))))
    assert all("memory does not suffice" in reason for reason in summary.failed.values())
    assert len(summary.failed) == 3


def test_what_failed_is_gone_before_tasks_are_tried_one_by_one(configure, run_folder, monkeypatch):
    """An error that is being handled keeps the tensors of its run."""

    class Large:
        """Stands for a tensor of the failed run."""

    held: list[weakref.ref] = []

    def evaluate(self, *arguments, **keywords):
        assert all(ref() is None for ref in held)
        large = Large()
        held.append(weakref.ref(large))
        raise ValueError("no such thing here")

    monkeypatch.setattr(CheckpointEvaluator, "evaluate", evaluate)
    summary = run_sweep(load_config(configure(models=[str(run_folder / "step0")])))
    assert len(held) == 3
    assert all("no such thing here" in reason for reason in summary.failed.values())
