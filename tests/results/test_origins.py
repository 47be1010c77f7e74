"""The checkpoint that a result file is about, by what it states and by names of folders and files."""

from __future__ import annotations

import pandas as pd
import pytest
from result_files import new, write

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import load_results


@pytest.mark.parametrize(
    ("args", "name", "expected"),
    [
        ({"pretrained": "/runs/neox-w32/step1000"}, "r.json", ("neox-w32", "step1000", 1000)),
        ({"pretrained": "/runs/neox-w32/checkpoints/checkpoint-500/"}, "r.json", ("neox-w32", "checkpoint-500", 500)),
        ({"pretrained": "neox-w32/step7"}, "r.json", ("neox-w32", "step7", 7)),
        ({"pretrained": "C:\\runs\\a\\step7"}, "r.json", ("a", "step7", 7)),
        # On the Hub, a name of two parts is a model.
        ({"pretrained": "org/model-step7"}, "r.json", ("org/model-step7", "main", None)),
        ({"pretrained": "org/model"}, "step9/r.json", ("org/model", "step9", 9)),
        ({"pretrained": "org/model"}, "14m_step9.json", ("org/model", "14m_step9", 9)),
        ({"pretrained": "org/model"}, "step9_2024-05-01T12-00-00.1.json", ("org/model", "step9", 9)),
        ({"pretrained": "org/model"}, "results_2024-05-01T12-00-00.1.json", ("org/model", "main", None)),
        ({"pretrained": "org/model", "revision": "abc"}, "step9/r.json", ("org/model", "abc", 9)),
        ({"pretrained": "org/model", "revision": 1000}, "r.json", ("org/model", "1000", 1000)),
        ("pretrained='org/model',revision=\"step9\"", "r.json", ("org/model", "step9", 9)),
        ("pretrained=org/model,a=b=c,,nonsense,revision=step9", "r.json", ("org/model", "step9", 9)),
        ({"model": "gpt-x", "base_url": "http://here"}, "r.json", ("gpt-x", "main", None)),
        ("", "some-model/r.json", ("some-model", "main", None)),
        ({"pretrained": "<b>\"x\"</b>/../../it's"}, "r.json", ("<b>\"x\"</b>/../../it's", "main", None)),
    ],
)  # fmt: skip
def test_names(tmp_path, args, name, expected):
    content = new()
    content["config"]["model_args"] = args
    write(tmp_path / "tree" / name, content)
    row = load_results(tmp_path / "tree").iloc[0]
    step = None if pd.isna(row.step) else row.step
    assert (row.model, row.revision, step) == expected


def test_names_of_ones_own(tmp_path):
    path = write(tmp_path / "r.json", new(args={"pretrained": "EleutherAI/pythia-160m", "revision": "it_12k"}))
    row = load_results(path, step_pattern=r"it_(?P<step>\d+k?)", tokens_per_step=10).iloc[0]
    assert (row.model, row.step, row.tokens) == ("EleutherAI/pythia-160m", 12_000, 120_000)
    # A pattern that finds a number anywhere does not make checkpoints of names on the Hub.
    write(path, new(args={"pretrained": "EleutherAI/pythia-160m"}))
    row = load_results(path, step_pattern=r"(?P<step>\d+)").iloc[0]
    assert row.model == "EleutherAI/pythia-160m"
    with pytest.raises(LmsatError, match="step_pattern"):
        load_results(tmp_path, step_pattern="(")
    with pytest.raises(LmsatError, match="tokens_per_step=0"):
        load_results(tmp_path, tokens_per_step=0)
