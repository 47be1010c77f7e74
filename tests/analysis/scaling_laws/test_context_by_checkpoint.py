"""The gain of context of each checkpoint: in a tree that was moved, and of the corpus that is asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from positions import TOKENS, positions
from result_trees import save_arrays, write_result

from lmsat_plugin.analysis import find_context
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import Results


def write_losses(root, step, arrays=None, corpus="text"):
    """Write a result of lmsat_loss, with its arrays if there are any."""
    path = write_result(root, "tiny", step, {"lmsat_loss": {"loss": (4.0, 0.1)}}, corpus=corpus)
    if arrays is not None:
        save_arrays(path, arrays)
    return path


def flat(seed=6):
    return positions(4.0, 0.0, 1.0, TOKENS, np.random.default_rng(seed))


def falling(seed=7):
    return positions(2.3, 5.4, 0.62, TOKENS, np.random.default_rng(seed))


def test_a_tree_that_was_moved(tmp_path, caplog):
    write_losses(tmp_path, 1, flat())
    path = write_losses(tmp_path, 2, falling())
    data = json.loads(path.read_text())
    data["config"]["lmsat"]["arrays"] = f"/nowhere/{data['config']['lmsat']['arrays']}"
    path.write_text(json.dumps(data))
    write_losses(tmp_path, 3, flat()).with_suffix(".safetensors").unlink()
    write_losses(tmp_path, 4)
    first, second = find_context(Results.read(tmp_path))
    assert [(one.step, one.revision, one.model) for one in (first, second)] == [
        (1, "step1", "tiny"),
        (2, "step2", "tiny"),
    ]
    assert (first.gain.improves, second.gain.improves) == (False, True)
    assert second.gain.exponent == pytest.approx(0.62, abs=0.1)
    lost, none = caplog.messages
    assert "step3" in lost
    assert "cannot be read" in lost
    assert "step4" in none
    assert "lmsat_loss has left no arrays" in none


def test_each_corpus_has_its_own_curve(tmp_path):
    write_losses(tmp_path, 1, flat(), corpus="a")
    write_losses(tmp_path, 1, falling(), corpus="b")
    results = Results.read(tmp_path)
    with pytest.raises(LmsatError, match="lmsat_loss on a, b, which do not compare: choose one with --corpus"):
        find_context(results)
    for corpus, improves in (("a", False), ("b", True)):
        (found,) = find_context(results.select([corpus]))
        assert found.gain.improves == improves


@pytest.mark.parametrize("noted", [True, False])
def test_one_file_with_two_corpora(tmp_path, noted):
    """Plain lm_eval measures several corpora in one run, each by a task of its own, and notes each by itself.

    Newer notes name their tasks; otherwise lm-eval's configuration of the task tells the corpus.
    """
    other, own = write_losses(tmp_path, 1, flat(), "a"), write_losses(tmp_path, 2, falling(), "b")
    first, data = (json.loads(path.read_text()) for path in (other, own))
    notes = [one["config"]["lmsat"] for one in (first, data)]
    notes[0]["arrays"], notes[1]["arrays"] = (str(path.with_suffix(".safetensors")) for path in (other, own))
    data["config"]["lmsat"] = notes
    data["results"] = {"loss_on_a": first["results"]["lmsat_loss"], **data["results"]}
    data["configs"] = {"lmsat_loss": {"task": "lmsat_loss", "metadata": {"corpus": "b"}}}
    if noted:
        notes[0]["tasks"], notes[1]["tasks"] = {"loss_on_a": "loss"}, {"lmsat_loss": "loss"}
    own.write_text(json.dumps(data))
    other.unlink()
    results = Results.read(tmp_path)
    rows = results.table[results.table.task == "lmsat_loss"]
    assert rows.corpus.unique().tolist() == ["b"]
    (found,) = find_context(results.select(["b"]))
    assert found.gain.improves
