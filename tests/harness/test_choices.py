"""Continuous metrics of multiple-choice tasks: against closed forms, brute force and lm-eval's own."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml
from downstream_data import HIGHER_IS_BETTER
from evaluation import simple_evaluate
from lm_eval.api.metrics import brier_score
from lm_eval.tasks import TaskManager
from quiz import write_quiz

from lmsat_plugin import load_results
from lmsat_plugin.analysis.chance import measured_chances
from lmsat_plugin.cli.main import main
from lmsat_plugin.harness import shared_tasks as tasks_module
from lmsat_plugin.harness.choices import choice_metrics
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.harness.shared_tasks import SharedTasks

if TYPE_CHECKING:
    from pathlib import Path

OURS = "class: !function lmsat_plugin.harness.downstream.DownstreamTask\n"


@pytest.fixture(scope="module")
def lm(checkpoint):
    return SaturationLM(str(checkpoint("gpt2")), dtype="float32", device="cpu", batch_size=8)


def write_task(folder: Path, text: str, rows: list[dict], name: str = "mine") -> Path:
    """Write a multiple-choice task with these documents, and return its folder."""
    folder.mkdir(exist_ok=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    head = (
        f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\n"
    )
    (folder / f"{name}.yaml").write_text(head + text, "utf-8")
    return folder


def evaluate(lm, manager: TaskManager, *names: str) -> dict:
    return simple_evaluate(model=lm, tasks=list(names), task_manager=manager, log_samples=True, bootstrap_iters=100)


def plain(folder: Path) -> TaskManager:
    return TaskManager(include_defaults=False, include_path=str(folder))


def brute_force(logprobs: list[float], right: set[int]) -> tuple[float, float, float]:
    total = math.fsum(math.exp(logprob) for logprob in logprobs)
    p = [math.exp(logprob) / total for logprob in logprobs]
    hit = sum(p[i] for i in right)
    wrong = [i for i in range(len(p)) if i not in right]
    brier = (1 - hit) ** 2 + sum(p[i] ** 2 for i in wrong)
    margin = max(math.log(p[i]) for i in right) - max(math.log(p[i]) for i in wrong)
    return hit, brier, margin


def assert_brute_force(results: dict, task: str, right_of) -> None:
    """Compare a task's results with what its logged samples say."""
    samples = results["samples"][task]
    documents = [brute_force([float(r[0]) for r in s["filtered_resps"]], right_of(s["doc"])) for s in samples]
    values = np.array(documents)
    row = results["results"][task]
    for index, metric in enumerate(HIGHER_IS_BETTER):
        assert row[f"{metric},none"] == pytest.approx(values[:, index].mean(), rel=1e-9)
        stderr = values[:, index].std(ddof=1) / math.sqrt(len(values))
        assert row[f"{metric}_stderr,none"] == pytest.approx(stderr, rel=1e-9)
        assert [s[metric] for s in samples] == pytest.approx(values[:, index].tolist(), rel=1e-9)
    # Equal options tie, and lm-eval takes the first.
    assert all((s["logprob_margin"] > 0) == (s["acc"] == 1) for s in samples if s["logprob_margin"] != 0)


@pytest.mark.parametrize("options", [2, 3, 4, 5])
def test_chance(options):
    guess = choice_metrics(np.full(options, -7.0), [options - 1])
    assert guess["correct_choice_prob"] == pytest.approx(1 / options)
    assert guess["brier_score"] == pytest.approx(1 - 1 / options)
    assert guess["logprob_margin"] == 0
    assert guess["chance"] == 1 / options


def test_published_values_of_the_brier_score():
    """Du et al. 2024: over four options a guess scores 0.75, always the same option 1.5, the right one 0."""
    always_first = np.array([0.0, -800, -800, -800])
    assert np.mean([choice_metrics(always_first, [i])["brier_score"] for i in range(4)]) == 1.5
    assert choice_metrics(always_first, [0]) == {
        "correct_choice_prob": 1.0,
        "brier_score": 0.0,
        "logprob_margin": 800.0,
        "chance": 0.25,
    }


def test_lm_evals_brier_score():
    rng = np.random.default_rng(0)
    logprobs, golds = rng.normal(0, 3, (50, 4)) - 900, rng.integers(0, 4, 50)
    p = np.exp(logprobs + 900)
    p /= p.sum(1, keepdims=True)
    ours = [choice_metrics(row, [gold])["brier_score"] for row, gold in zip(logprobs, golds, strict=True)]
    assert np.mean(ours) == pytest.approx(brier_score(list(zip(golds, p, strict=True))), rel=1e-12)


def test_several_right_options_are_one():
    logprobs = np.log([0.5, 0.2, 0.2, 0.1])
    both = choice_metrics(logprobs, [1, 2])
    assert both["correct_choice_prob"] == pytest.approx(0.4)
    assert both["chance"] == 0.5
    assert both["brier_score"] == pytest.approx(0.6**2 + 0.5**2 + 0.1**2)
    assert both["logprob_margin"] == pytest.approx(math.log(0.2 / 0.5))


def test_no_right_option_has_no_margin():
    none = choice_metrics(np.log([0.5, 0.5]), [])
    assert (none["correct_choice_prob"], none["brier_score"]) == pytest.approx((0, 1.5))
    assert none["chance"] == 0
    assert math.isnan(none["logprob_margin"])


def test_plain_lm_eval_with_unequal_numbers_of_options(lm, tmp_path):
    """As ARC: 3, 4 and 5 options, where lm-eval's own Brier score fails."""
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    rows = [
        {"question": f"What comes after {words[i]}?", "choices": words[i : i + 3 + i % 3], "answer": i % 3}
        for i in range(6)
    ]
    text = (
        "doc_to_text: question\ndoc_to_choice: choices\ndoc_to_target: answer\n"
        "metric_list: [{metric: acc}, {metric: acc_norm}]\n"
    )
    folder = write_task(tmp_path / "tasks", OURS + text, rows)
    write_task(folder, text, rows, "theirs")
    results = evaluate(lm, plain(folder), "mine", "theirs")
    assert {len(s["filtered_resps"]) for s in results["samples"]["mine"]} == {3, 4, 5}
    assert_brute_force(results, "mine", lambda doc: {doc["answer"]})
    own, theirs = results["results"]["mine"], results["results"]["theirs"]
    assert {key: own[key] for key in theirs if key.startswith("acc")} == {
        key: theirs[key] for key in theirs if key.startswith("acc")
    }
    assert results["higher_is_better"]["mine"] == {"acc": True, "acc_norm": True, **HIGHER_IS_BETTER}
    assert not set(HIGHER_IS_BETTER) & {key.split(",")[0] for key in theirs}


def test_shared_tasks_add_them_to_any_task(lm, tmp_path):
    """Few-shot, filtered twice, in a group that aggregates; the accuracies are bit-identical to lm-eval's."""
    folder = write_quiz(tmp_path / "quiz")
    text = (folder / "quiz.yaml").read_text()
    first = "filter: [{function: take_first}]"
    filters = f"filter_list: [{{name: a, {first}}}, {{name: b, {first}}}]\n"
    (folder / "filtered.yaml").write_text(text.replace("task: quiz", "task: filtered") + filters)
    (folder / "group.yaml").write_text(
        "group: both\ntask: [quiz, filtered]\naggregate_metric_list: [{metric: acc, filter_list: [none, a]}]\n"
    )
    theirs = evaluate(lm, plain(folder), "both")
    shared = SharedTasks(["both"], [str(folder)], {})
    for _ in range(2):
        ours = evaluate(lm, shared, "both")
        for task, row in theirs["results"].items():
            assert {k: ours["results"][task][k] for k in row} == row, "what lm-eval measures stays"
        assert_brute_force(ours, "quiz", lambda doc: {doc["answer"]})
        filtered, quiz = ours["results"]["filtered"], ours["results"]["quiz"]
        for metric in HIGHER_IS_BETTER:
            assert filtered[f"{metric},a"] == filtered[f"{metric},b"] == quiz[f"{metric},none"]
        assert ours["results"]["both"].keys() == theirs["results"]["both"].keys()
    prompts = [[s["arguments"] for s in r["samples"]["quiz"]] for r in (theirs, ours)]
    assert prompts[0] == prompts[1]


def test_a_tasks_own_brier_score_stays(lm, tmp_path):
    folder = write_quiz(tmp_path / "quiz")
    text = (folder / "quiz.yaml").read_text()
    (folder / "brier.yaml").write_text(
        text.replace("task: quiz", "task: brier").replace("{metric: acc_norm}", "{metric: brier_score}")
    )
    theirs = evaluate(lm, plain(folder), "brier")["results"]["brier"]
    results = evaluate(lm, SharedTasks(["brier", "quiz"], [str(folder)], {}), "brier", "quiz")["results"]
    assert {key: results["brier"][key] for key in theirs} == theirs
    assert "correct_choice_prob,none" in results["brier"]
    # The same documents, by lm-eval's formula and by ours.
    assert results["quiz"]["brier_score,none"] == pytest.approx(theirs["brier_score,none"], rel=1e-9)


def test_gold_as_lm_eval_reads_it(lm, tmp_path):
    """Several right options; the right one by its text; options in the context; unconditional requests besides."""
    head = "metric_list: [{metric: acc}%s]\ndoc_to_choice: choices\n"
    rows = [
        {"q": f"A {word} is", "choices": ["red", "blue", "a thing"], "all": [0, 2], "text": "blue", "i": n % 3}
        for n, word in enumerate(["cat", "dog", "house", "tree"])
    ]
    folder = write_task(tmp_path / "t", head % "" + "doc_to_text: q\ndoc_to_target: all\n", rows, "several")
    write_task(folder, head % "" + "doc_to_text: q\ndoc_to_target: text\n", rows, "named")
    write_task(folder, head % "" + "doc_to_text: i\ndoc_to_target: q\n", rows, "inputs")
    mutual = head % ", {metric: acc_mutual_info}"
    write_task(folder, mutual + "doc_to_text: q\ndoc_to_target: i\n", rows, "mutual")
    names = ["several", "named", "inputs", "mutual"]
    results = evaluate(lm, SharedTasks(names, [str(folder)], {}), *names)
    assert_brute_force(results, "several", lambda doc: {0, 2})
    assert_brute_force(results, "named", lambda doc: {1})
    assert_brute_force(results, "inputs", lambda doc: {doc["i"]})
    assert len(results["samples"]["mutual"][0]["filtered_resps"]) == 6
    for sample in results["samples"]["mutual"]:
        sample["filtered_resps"] = sample["filtered_resps"][:3]
    assert_brute_force(results, "mutual", lambda doc: {doc["i"]})


def test_tasks_with_results_of_their_own_are_left_alone(lm, tmp_path):
    folder = write_quiz(tmp_path / "quiz")
    (folder / "own.py").write_text("def score(doc, results):\n    return {'acc': float(len(results))}\n")
    (folder / "own.yaml").write_text(
        "include: quiz.yaml\ntask: own\nprocess_results: !function own.score\nmetric_list: [{metric: acc}]\n"
    )
    row = evaluate(lm, SharedTasks(["own"], [str(folder)], {}), "own")["results"]["own"]
    assert row["acc,none"] == 4
    assert not [key for key in row if key.split(",")[0] in HIGHER_IS_BETTER]


def test_sweeps_measure_them_and_older_results_stand(tmp_path, checkpoint, monkeypatch):
    config = {
        "models": [str(checkpoint("gpt2"))],
        "tasks": ["quiz"],
        "include_path": str(write_quiz(tmp_path / "quiz")),
        "output": str(tmp_path / "out"),
        "device": "cpu",
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(config))

    def results() -> list[dict]:
        return [json.loads(file.read_text()) for file in (tmp_path / "out").rglob("results_*.json")]

    with monkeypatch.context() as without:
        without.setattr(tasks_module, "add_choice_metrics", lambda task: None)
        assert main(["sweep", str(path)]) == 0
    [before] = results()
    assert main(["sweep", str(path)]) == 0
    assert results() == [before]
    assert main(["sweep", str(path), "--force"]) == 0
    [after] = [document for document in results() if document != before]
    row = after["results"]["quiz"]
    old = {k: v for k, v in before["results"]["quiz"].items() if k.startswith("acc")}
    assert len(old) == 4
    assert {key: row[key] for key in old} == old
    for metric, higher in HIGHER_IS_BETTER.items():
        assert math.isfinite(row[f"{metric},none"])
        assert row[f"{metric}_stderr,none"] > 0
        assert after["higher_is_better"]["quiz"][metric] is higher
    assert row["chance,none"] == 0.25
    assert "chance" not in after["higher_is_better"]["quiz"]
    assert measured_chances(load_results(tmp_path / "out")) == {"quiz": 0.25}
