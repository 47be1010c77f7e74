"""The notebook: its cells run as they are, offline, and find what they say they find."""

from __future__ import annotations

import json

import matplotlib as mpl
import pytest
from places import ROOT

PATH = ROOT / "examples" / "tutorial.ipynb"
NOTEBOOK = json.loads(PATH.read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return the names that the cells leave."""
    names: dict = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch, mpl.rc_context({"backend": "agg"}):
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("tutorial")))
        for number, cell in enumerate(CODE):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    return names


def test_outputs_are_stored_with_pictures_and_are_small():
    assert [cell["execution_count"] for cell in CODE] == [*range(1, len(CODE) + 1)]
    kinds = [kind for cell in CODE for output in cell["outputs"] for kind in output.get("data", ())]
    assert kinds.count("image/png") >= 3
    assert kinds.count("text/html") >= 3
    assert not any(output["output_type"] == "error" for cell in CODE for output in cell["outputs"])
    assert PATH.stat().st_size < 1.5e6
    assert "/tmp/" not in "".join(str(cell["outputs"]) for cell in CODE)


def test_it_uses_the_functions_of_the_package():
    source = "".join("".join(cell["source"]) for cell in CODE)
    assert "cli" not in source
    for name in ("measure", "sweep", "saturation", "plot", "leaderboard", "compare"):
        assert f"lmsat_plugin.{name}(" in source


def test_losses_are_above_the_entropy_rate(found):
    """No predictor beats the source itself on the text that is measured."""
    source, tokenizer = found["source"], found["tokenizer"]
    tokens = [tokenizer.encode(text) for text in found["held_out"]]
    least = sum(source.loss(document) * len(document) for document in tokens) / sum(map(len, tokens))
    losses = found["losses"]
    assert len(losses) == found["STEPS"] // found["EVERY"] + 1
    assert losses.min(axis=None) > least
    assert losses.fresh.iloc[-1] < losses.fresh.iloc[0] - 1


def test_measure_and_the_sweep_agree(found):
    metrics = found["outcome"].to_frame().set_index(["task", "metric"])["value"]
    assert metrics["lmsat_loss", "loss"] == pytest.approx(found["losses"].fresh.iloc[-1], rel=1e-6)
    assert len(found["outcome"].arrays["anisotropy/by_layer"]) == 3


def test_verdicts(found):
    verdicts = {verdict.model: verdict for verdict in found["verdicts"]}
    assert verdicts["repeated"].verdict == "saturates"
    assert verdicts["repeated"].best_step < verdicts["repeated"].onset_step
    assert verdicts["fresh"].verdict in ("improving", "plateaus")


def test_the_best_of_a_healthy_run_beats_its_last_checkpoint_and_is_no_saturation(found):
    simulated = found["simulated"]
    assert simulated.best < simulated.final
    assert simulated.verdict == "plateaus"
