"""Probes that train or run backward passes give on two processes the numbers of one."""

from __future__ import annotations

import json

import pytest
from evaluation import evaluate, numbers
from gradient_noise_runs import SETTINGS
from places import HELPERS
from tiny_models import make_model
from torchrun import launch

SCRIPT = """
import json, sys
sys.path.insert(0, TESTS)
from evaluation import evaluate

for name, (task, arguments) in json.loads(sys.argv[1]).items():
    results = evaluate("lmsat", [task], **arguments)
    if results is not None:
        with open(f"{sys.argv[2]}/{name}.json", "x") as file:
            json.dump({key: results[key] for key in ("results", "config")}, file, default=str)
""".replace("TESTS", repr(str(HELPERS)))


@pytest.fixture(scope="module")
def runs(checkpoint, tokenizer, documents, texts, tmp_path_factory):
    """Return tasks with their arguments; of "one batch" only one process has anything to do in each pass."""
    folder = tmp_path_factory.mktemp("corpora")
    for name, parts in {"documents": documents, "texts": texts}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in parts))
    options = {"dtype": "float32", "device": "cpu"}
    heads = {
        "model_args": {"pretrained": str(checkpoint("gpt_neox")), **options},
        "corpus": str(folder / "texts.jsonl"), "max_tokens": 1500, "ranks": [4, 48],
        "train_tokens": 12_000, "batch_tokens": 500,
    }  # fmt: skip
    noise = {
        "model_args": {"pretrained": str(checkpoint("gpt2")), **options},
        "corpus": str(folder / "documents.jsonl"), **SETTINGS,
    }  # fmt: skip
    make_model("gpt2", 1).save_pretrained(folder / "reference")
    tokenizer.save_pretrained(folder / "reference")
    beside = {
        "model_args": noise["model_args"], "corpus": noise["corpus"], "reference": str(folder / "reference"),
        "max_tokens": 600,
    }  # fmt: skip
    return {
        "similarity": ("lmsat-similarity", {**beside, "similarity_tokens": 200}),
        "weights": ("lmsat-weights", beside),
        "sharpness": ("lmsat-sharpness", {**beside, "sharpness_tokens": 200}),
        "heads": ("lmsat_rank_head", {**heads, "batch_size": 3}),
        "one batch": ("lmsat_rank_head", {**heads, "batch_size": 1000, "train_tokens": 3000}),
        "noise": ("lmsat_gradient_noise", noise),
    }


@pytest.fixture(scope="module")
def on_two(runs, tmp_path_factory):
    """Return the results of two processes by name; only one of them writes."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "script.py").write_text(SCRIPT)
    launch(2, str(folder / "script.py"), json.dumps(runs), str(folder))
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in runs}


@pytest.mark.parametrize(
    ("name", "tolerance", "metric"),
    [
        ("heads", 2e-4, "accuracy_rank_48_stderr,none"),
        ("one batch", 2e-4, "accuracy_rank_48_stderr,none"),
        ("noise", 1e-5, "critical_batch_tokens_stderr,none"),
        ("similarity", 1e-6, "cka_mean,none"),
        ("weights", 1e-12, "relative_change,none"),
        ("sharpness", 1e-5, "critical_sharpness,none"),
    ],
)
def test_two_processes_give_the_numbers_of_one(name, tolerance, metric, runs, on_two):
    """The whole task in lm-eval, standard errors too."""
    task, arguments = runs[name]
    assert on_two[name]["config"]["lmsat"]["processes"] == 2
    expected, found = (numbers(results) for results in (evaluate("lmsat", [task], **arguments), on_two[name]))
    assert (task, metric) in expected
    assert found.keys() == expected.keys()
    missing = {key for key, value in expected.items() if value is None}
    assert missing == {key for key, value in found.items() if value is None}
    assert {key[1]: found[key] for key in found.keys() - missing} == pytest.approx(
        {key[1]: expected[key] for key in expected.keys() - missing}, rel=tolerance
    )
