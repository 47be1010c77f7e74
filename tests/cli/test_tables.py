"""What analyses read: tables of one's own, and trees of results on several corpora."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from lmsat_plugin.analysis.tables import check_nats, loss_of_results, losses_of_two_corpora, numbers, read_csv
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError

STEPS = (0, 100, 200, 400, 800, 1600)


def write(root, model: str, step: int, corpus: str, loss: float) -> None:
    """Write a result file as a sweep does."""
    noted = {"probes": {"loss": {"version": 1, "settings": {}}}, "corpus": {"corpus": corpus, "documents": 2}}
    config = {
        "model": "lmsat",
        "model_args": {"pretrained": model, "revision": f"step{step}"},
        "lmsat": {
            **noted,
            "model": {"n_params": 1000 * len(model), "n_params_non_embedding": 900 * len(model)},
        },
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
    found = printed(capsys, "fit", "transfer", tree, "--tokens-per-step", 1000)
    assert found["params"]["slope"]["value"] == pytest.approx(1, abs=0.02)
    assert found["derived"]["offset_at_slope_1"]["value"] == pytest.approx(0.7, abs=0.01)
    turned = printed(capsys, "fit", "transfer", tree, "--corpus", "theirs", "--corpus", "ours")
    assert turned["derived"]["offset_at_slope_1"]["value"] == pytest.approx(-0.7, abs=0.01)


def test_one_corpus_of_a_tree(tree, capsys):
    assert main(["fit", "chinchilla", str(tree), "--tokens-per-step", "1000"]) == 2
    assert (
        "lmsat_loss on ours, theirs, which do not compare: choose one with --corpus"
        in capsys.readouterr().err
    )
    found = printed(capsys, "fit", "chinchilla", tree, "--tokens-per-step", 1000, "--corpus", "ours")
    # Untrained models have no place in a law of tokens.
    assert found["n_points"] == 6 * (len(STEPS) - 1)
    both = printed(capsys, "saturation", tree)
    assert len(both) == 12
    assert {one["corpus"] for one in both} == {"ours", "theirs"}
    assert len(printed(capsys, "saturation", tree, "--corpus", "ours")) == 6
    assert main(["saturation", str(tree), "--corpus", "others"]) == 2
    assert "--corpus others: give some of ours, theirs" in capsys.readouterr().err


def test_rows_of_other_tasks_stay_with_a_corpus():
    table = pd.DataFrame(
        {
            "model": "m",
            "revision": ["a", "a", "b"],
            "task": "lmsat_loss",
            "metric": ["loss", "perplexity", "loss"],
            "value": [1.0, 2.7, 3.0],
            "corpus": ["x", "x", "y"],
        }
    )
    assert list(loss_of_results(table[:2]).loss) == [1.0]
    assert list(loss_of_results(table[:2], "perplexity").loss) == [2.7]
    with pytest.raises(LmsatError, match="no metric 'bits' in these results: take one of loss, perplexity"):
        loss_of_results(table[:2], "bits")
    with pytest.raises(LmsatError, match="no checkpoint was measured on both x and y"):
        losses_of_two_corpora(table)


def test_numbers():
    table = pd.DataFrame({"a": ["1", "x", 3], "b": [1, 2, 0], "name": list("pqr")})
    found = numbers(table, ["a"], optional=["b", "c"])
    assert found.a.tolist() == [1.0, 3.0]
    assert found.b.dtype == np.float64
    with pytest.raises(LmsatError, match="row 3 has b=0, which must be above 0"):
        numbers(table, ["a", "b"], positive=["b"])
    with pytest.raises(LmsatError, match="no column 'c': it needs a, c, and has a, b, name"):
        numbers(table, ["a", "c"])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"perplexity": 8.0}, "multiply them by ln 2"),
        ({"bits_per_byte": 3.0}, "bits per byte"),
        ({"vocab_size": 8}, "ln\\(vocab_size\\) = 2.08"),
    ],
)
def test_losses_in_other_units_are_told(columns, said):
    table = pd.DataFrame({"loss": [3.0] * 5, **columns})
    with pytest.raises(LmsatError, match=said):
        check_nats(table)


def test_losses_in_nats_pass():
    check_nats(
        pd.DataFrame({"loss": [3.0], "perplexity": [np.exp(3)], "vocab_size": [50257], "bits_per_byte": 1.1})
    )
    check_nats(pd.DataFrame({"loss": [3.0], "vocab_size": pd.array([pd.NA], dtype="Int64")}))


def test_csv(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("model, loss \nm, 3.5\n", "utf-8")
    assert read_csv(path).columns.tolist() == ["model", "loss"]
    path.write_text("model,loss\n", "utf-8")
    with pytest.raises(LmsatError, match="no rows"):
        read_csv(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LmsatError, match="cannot be read as CSV"):
        read_csv(path)
