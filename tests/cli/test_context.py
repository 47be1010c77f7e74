"""``lmsat context`` and ``lmsat efficiency`` of a tree: what they print and draw, and what is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from positions import TOKENS, positions
from result_trees import save_arrays, write_result

from lmsat_plugin.cli.main import main


@pytest.fixture
def tree(tmp_path):
    """Two checkpoints, of which the second improves with its context."""
    for step, law in ((1, (4.0, 0.0, 1.0)), (2, (2.3, 5.4, 0.62))):
        path = write_result(tmp_path, "tiny", step, {"lmsat_loss": {"loss": (4.0, 0.1)}})
        save_arrays(path, positions(*law, tokens_P=TOKENS, rng=np.random.default_rng(step)))
    return tmp_path


def test_context(tree, tmp_path, capsys):
    figure = tmp_path / "context.svg"
    assert main(["context", str(tree), "--json", "--figure", str(figure)]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert list(first)[:5] == ["model", "variant", "revision", "step", "loss"]
    assert {"exponent", "stops_at", "first_loss"} <= first.keys()
    assert (first["step"], first["improves"], first["exponent"]) == (1, False, None)
    assert second["exponent"] == pytest.approx(0.62, abs=0.1)
    assert figure.read_text("utf-8").count("<svg") == 1
    assert main(["context", str(tree)]) == 0
    assert "never" in capsys.readouterr().out


def test_the_commands_say_what_is_missing(tmp_path, capsys):
    write_result(tmp_path, "tiny", 1, {"lmsat_loss": {"loss": (4.0, 0.1)}})
    assert main(["context", str(tmp_path)]) == 2
    assert "run it again with arrays=FOLDER" in capsys.readouterr().err
    path = next(tmp_path.rglob("results_*.json"))
    save_arrays(path, {"loss/by_position": np.ones(64)})
    path.with_suffix(".safetensors").unlink()
    assert main(["context", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["efficiency", str(tmp_path), "--loss", "3"]) == 2
    assert "--tokens-per-step" in capsys.readouterr().err
    assert main(["efficiency", str(tmp_path), "--loss", "3", "--figure", "x.gif"]) == 2
    assert "x.gif" in capsys.readouterr().err
