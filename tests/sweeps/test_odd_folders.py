"""Every way to a checkpoint whose files contradict each other gives the numbers of what transformers loads."""

from __future__ import annotations

import logging

import pytest
import transformers
from evaluation import TASKS, evaluate, numbers
from odd_folders import FOLDERS, untied_without_a_head
from sweep_outputs import files_of

from lmsat_plugin import measure
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.sweeps.weights import read_ahead

PROBES = [task.removeprefix("lmsat_") for task in TASKS]
ODD = [name for name in FOLDERS if name != "plain"]


@pytest.fixture(scope="module")
def series(tmp_path_factory, tokenizer):
    """Return a folder with all odd folders."""
    parent, others = tmp_path_factory.mktemp("series"), tmp_path_factory.mktemp("made")
    for number, (name, make) in enumerate(FOLDERS.items()):
        make(others / name)
        (others / name).rename(parent / f"step{number}")
        tokenizer.save_pretrained(parent / f"step{number}")
    return parent


@pytest.fixture(scope="module")
def swept(series, tmp_path_factory, documents):
    """Return the values of two sweeps: of all tasks, and of the head alone."""
    place = tmp_path_factory.mktemp("swept")
    (place / "text.txt").write_text(documents[4])
    values = []
    for tasks in (TASKS, ["lmsat_head"]):
        config = place / f"{len(tasks)}.yaml"
        lines = [f"models: [{series}]", f"tasks: [{', '.join(tasks)}]", f"corpus: {place / 'text.txt'}", "device: cpu"]
        config.write_text("\n".join([*lines, f"output: {place / str(len(tasks))}"]))
        assert main(["sweep", str(config)]) == 0
        by_step: dict[str, dict] = {}
        for document in files_of(place / str(len(tasks))).values():
            step = document["config"]["lmsat"]["checkpoint"]["step"]
            by_step.setdefault(f"step{step}", {}).update(values_of(document))
        values.append(by_step)
    return (*values, place / "text.txt")


def values_of(results) -> dict[tuple[str, str], float]:
    return {key: value for key, value in numbers(results).items() if "stderr" not in key[1]}


def metrics_of(outcome) -> dict[tuple[str, str], float]:
    pairs = ((name.split("/"), value) for name, value in outcome.metrics.items())
    return {(task, f"{metric},none"): value for (task, metric), value in pairs}


@pytest.mark.parametrize("name", FOLDERS)
def test_all_ways_give_the_numbers_of_what_transformers_loads(name, series, swept, tokenizer):
    step = f"step{list(FOLDERS).index(name)}"
    whole, heads, text = swept
    loaded = transformers.AutoModelForCausalLM.from_pretrained(series / step)
    expected = metrics_of(measure(loaded, PROBES, tokenizer=tokenizer, corpus=str(text)))
    assert len(expected) > 10
    assert metrics_of(measure(series / step, PROBES, corpus=str(text))) == expected
    results = evaluate("lmsat", model_args={"pretrained": str(series / step), "device": "cpu"}, corpus=str(text))
    assert values_of(results) == expected
    assert whole[step] == expected
    assert heads[step] == {key: value for key, value in expected.items() if key[0] == "lmsat_head"}
