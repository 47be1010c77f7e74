"""The questions in a page: what the files of samples say, of the checkpoints that matter, as many as have room."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from report_trees import read_analyses

from lmsat_plugin.page.chart_data import chart_data
from lmsat_plugin.page.sample_data import QUESTIONS

if TYPE_CHECKING:
    from pathlib import Path

STEPS = (100, 200, 300, 400)
COUNT = 30
OPTIONS = [" one", " two", " <b>three</b>"]
LOGS = np.random.default_rng(0).normal(-5, 2, (len(STEPS), COUNT, 3))
RIGHT = [index % 3 for index in range(COUNT)]
DATE = "2026-01-01T00-00-00.00000"


def sample(index: int, logs: np.ndarray, *, written: bool) -> dict[str, Any]:
    """A question as a sweep keeps it, or as lm_eval writes it: with objects and texts for lists and numbers."""
    prompt = f"question {index}\x1b"
    acc = float(int(logs.argmax()) == RIGHT[index])
    found: dict[str, Any] = {"doc_id": index, "doc_hash": f"{index:064x}", "filter": "none", "metrics": ["acc"]}
    if written:
        requests = {f"gen_args_{i}": {"arg_0": prompt, "arg_1": option} for i, option in enumerate(OPTIONS)}
        responses = [[str(log), "False"] for log in logs]
        return found | {"arguments": requests, "filtered_resps": responses, "target": str(RIGHT[index]), "acc": acc}
    responses = [[float(log), False] for log in logs]
    requests = [[prompt, option] for option in OPTIONS]
    return found | {"arguments": requests, "filtered_resps": responses, "target": RIGHT[index], "acc": acc}


def write(root: Path, step: int, samples: list[dict[str, Any]], task: str = "quiz") -> None:
    folder = root / f"m/step{step}"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = f"{DATE}{STEPS.index(step)}"
    accuracy = float(np.mean([one["acc"] for one in samples]))
    config = {"model": "hf", "model_args": {"pretrained": "org/m", "revision": f"step{step}", "token": "hf_secret"}}
    result = {"results": {task: {"acc,none": accuracy}}, "n-shot": {task: 5}, "config": config}
    (folder / f"results_{stamp}.json").write_text(json.dumps(result), "utf-8")
    lines = "".join(json.dumps(one) + "\n" for one in samples)
    (folder / f"samples_{task}_{stamp}.jsonl").write_text(lines, "utf-8")


@pytest.fixture(scope="module", params=[False, True], ids=["sweep", "lm_eval"])
def content(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("samples")
    for place, step in enumerate(STEPS):
        write(root, step, [sample(index, LOGS[place, index], written=request.param) for index in range(COUNT)])
    return chart_data(read_analyses(root)).content


def test_probabilities_are_shares_of_the_options(content):
    by_place = {one["k"]: one for one in content["answers"]}
    assert {0, 3} <= set(by_place)
    assert "first" in by_place[0]["kind"]
    assert "last" in by_place[3]["kind"]
    for k, one in by_place.items():
        assert one["file"] == f"samples_quiz_{DATE}{k}.jsonl"
        assert len(one["shown"]) + len(one["changed"]) <= QUESTIONS
        for number, said, is_right in one["shown"]:
            text, options, right = content["questions"]["quiz"][number]
            index = int(text.removeprefix("question ").removesuffix("\\x1b"))
            shares = np.exp(LOGS[k, index]) / np.exp(LOGS[k, index]).sum()
            assert said == pytest.approx(shares, rel=5e-3)
            assert options == ("one", "two", "<b>three</b>")
            assert right == RIGHT[index]
            assert is_right == (shares.argmax() == RIGHT[index])


def test_what_changed_most(content):
    last = next(one for one in content["answers"] if one["k"] == 3)
    assert last["before"] == 2
    shares = np.exp(LOGS) / np.exp(LOGS).sum(-1, keepdims=True)
    rises = np.array([shares[3, index, RIGHT[index]] - shares[2, index, RIGHT[index]] for index in range(COUNT)])
    order = np.argsort(rises)
    expected = [*order[::-1][:5], *order[:5]]
    texts = [content["questions"]["quiz"][number][0] for number, *_ in last["changed"]]
    assert texts == [f"question {index}\\x1b" for index in expected]
    _, before, _, after, _ = last["changed"][0]
    right = RIGHT[expected[0]]
    assert after[right] - before[right] == pytest.approx(rises[expected[0]], abs=2e-3)


def test_the_command_measures_again_and_keeps_no_secret(content):
    (command,) = content["commands"]
    assert command == ("lm_eval --model hf --model_args pretrained=org/m,revision=\x00 --tasks quiz --num_fewshot 5")
    assert content["commands_of"] == [[0]]
    assert "hf_secret" not in json.dumps(content)


def test_texts_that_are_generated_and_single_continuations(tmp_path):
    generated = {"doc_id": 0, "arguments": [["Q: 2+2?", {"until": ["\n"]}]], "filtered_resps": ["4"], "target": "4"}
    one = {
        "doc_id": 1,
        "arguments": [["The cat sat on the", " mat"]],
        "filtered_resps": [[-1.5, True]],
        "target": " mat",
    }
    write(tmp_path, 100, [{**generated, "exact_match": 1.0, "acc": 1.0, "metrics": ["exact_match"]}], "math")
    write(tmp_path, 200, [{**one, "acc": 1.0, "metrics": ["acc"]}], "lambada")
    content = chart_data(read_analyses(tmp_path)).content
    answers = {one["task"]: one["shown"] for one in content["answers"]}
    assert answers["math"] == [[0, "4", 1]]
    assert content["questions"]["math"] == [["Q: 2+2?", ("4",), 0]]
    ((number, said, is_right),) = answers["lambada"]
    assert said == [pytest.approx(math.exp(-1.5), rel=5e-3)]
    assert is_right == 1
    assert content["questions"]["lambada"][number][1] == ("mat",)


def test_damaged_samples_are_left_out(tmp_path, caplog):
    write(tmp_path, 100, [sample(0, LOGS[0, 0], written=False)])
    next(tmp_path.rglob("samples_*")).write_text("{", "utf-8")
    assert chart_data(read_analyses(tmp_path)).content["answers"] == []
    assert "cannot be read" in caplog.text
