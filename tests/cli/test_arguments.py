"""The arguments that several commands share: corpora of a tree of results."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lmsat_plugin.cli.main import main

STEPS = (0, 100, 200, 400, 800, 1600)


def write(root, model: str, step: int, corpus: str, loss: float) -> None:
    """Write a result file as a sweep does."""
    noted = {"probes": {"loss": {"version": 1, "settings": {}}}, "corpus": {"corpus": corpus, "documents": 2}}
    config = {
        "model": "lmsat",
        "model_args": {"pretrained": model, "revision": f"step{step}"},
        "lmsat": {**noted, "model": {"n_params": 1000 * len(model), "n_params_non_embedding": 900 * len(model)}},
    }
    result = {"results": {"lmsat_loss": {"loss,none": loss}}, "config": config}
    place = root / model / f"step{step}" / corpus
    place.mkdir(parents=True)
    (place / "results_1.json").write_text(json.dumps(result), "utf-8")


@pytest.fixture
def tree(tmp_path):
    """Six models, trained on ``ours``: the loss on ``theirs`` is 0.7 nats more."""
    rng = np.random.default_rng(0)
    for size in range(1, 7):
        for step in STEPS:
            loss = 2 + 3 * (step / 100 + 1) ** -0.3 + 1 / size
            write(tmp_path, "m" * size, step, "ours", loss)
            write(tmp_path, "m" * size, step, "theirs", loss + 0.7 + 0.005 * rng.standard_normal())
    return tmp_path


def printed(capsys, *arguments) -> dict:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_transfer_between_two_corpora_of_a_tree(tree, capsys):
    arguments = ["fit", "transfer", tree, "--tokens-per-step", 1000]
    assert main(list(map(str, arguments))) == 2
    assert "trained on ours or on theirs: name that one first" in capsys.readouterr().err
    found = printed(capsys, *arguments, "--corpus", "ours", "--corpus", "theirs")
    assert found["params"]["slope"]["value"] == pytest.approx(1, abs=0.02)
    assert found["derived"]["offset_at_slope_1"]["value"] == pytest.approx(0.7, abs=0.01)
    turned = printed(capsys, "fit", "transfer", tree, "--corpus", "theirs", "--corpus", "ours")
    assert turned["derived"]["offset_at_slope_1"]["value"] == pytest.approx(-0.7, abs=0.01)


def test_one_corpus_of_a_tree(tree, capsys):
    assert main(["fit", "chinchilla", str(tree), "--tokens-per-step", "1000"]) == 2
    assert "lmsat_loss on ours, theirs, which do not compare: choose one with --corpus" in capsys.readouterr().err
    found = printed(capsys, "fit", "chinchilla", tree, "--tokens-per-step", 1000, "--corpus", "ours")
    # Untrained models have no place in a law of tokens.
    assert found["n_points"] == 6 * (len(STEPS) - 1)
    both = printed(capsys, "saturation", tree)
    assert len(both) == 12
    assert {one["corpus"] for one in both} == {"ours", "theirs"}
    assert len(printed(capsys, "saturation", tree, "--corpus", "ours")) == 6
    assert main(["saturation", str(tree), "--corpus", "others"]) == 2
    assert "--corpus others: give some of ours, theirs" in capsys.readouterr().err
