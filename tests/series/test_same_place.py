"""Which of several checkpoints of one step a series takes: copies in another form, equal weights, different weights."""

from __future__ import annotations

import json

import pytest
from checkpoint_folders import make_checkpoint

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.series.finding import find_series
from lmsat_plugin.series.selection import select


def test_copies_in_another_form(tmp_path):
    run = tmp_path / "run"
    for name in ("checkpoint-5", "checkpoint-5-merged", "checkpoint-7-merged", "fp16", "final"):
        make_checkpoint(run / name)
    found = find_series(str(run))
    assert [each.name for each in select(found.checkpoints, "all")] == ["checkpoint-5", "checkpoint-7-merged"]
    assert [each.name for each in select(found.checkpoints, "*-5*")] == ["checkpoint-5"]
    assert [each.name for each in select(found.checkpoints, "checkpoint-5-merged")] == ["checkpoint-5-merged"]
    assert sorted(found.left_out) == [
        ("checkpoint-5-merged", "a copy in another form"),
        ("final", "states no step, tokens or words"),
        ("fp16", "a copy in another form"),
    ]


def test_two_checkpoints_of_one_step(tmp_path, caplog):
    run = tmp_path / "two of one"
    for name, weights in {
        "checkpoint-5": b"a",
        "step5": b"b",
        "checkpoint-9": b"c",
        "step9": b"c",
        "step20": b"d",
    }.items():
        make_checkpoint(run / name, weights)
    found = find_series(str(run)).checkpoints
    find_series(str(run))
    [warning] = [record.message for record in caplog.records]
    assert "checkpoint-5 and step5" in warning
    assert "different weights" in warning
    assert "step9" not in warning
    for selection in ("all", "log:10", "1.."):
        assert [each.name for each in select(found, selection)] == ["checkpoint-9", "step20"]
    assert [each.name for each in select(found, ["all", "step5"])] == ["step5", "checkpoint-9", "step20"]
    with pytest.raises(LmsatError, match=r"revisions=all: all checkpoints of .* are left out"):
        select(found[:2], "all")
    # Who states the step by its name is the run's.
    make_checkpoint(tmp_path / "ended" / "checkpoint-5", global_step=5)
    make_checkpoint(tmp_path / "ended" / "final", global_step=5)
    ended = find_series(str(tmp_path / "ended"))
    assert [each.name for each in select(ended.checkpoints, "all")] == ["checkpoint-5"]
    assert ended.left_out == [("final", "of the step of checkpoint-5")]


def test_two_revisions_of_one_step_on_the_hub(empty_hub, warm_with_hub, tmp_path):
    """The digests that the Hub states tell whether the weights are equal; nothing is downloaded."""
    weights = {"step5": b"a", "step-5": b"b", "step9": b"c", "step-9": b"c"}
    folders = {name: make_checkpoint(tmp_path / name, content) for name, content in weights.items()}
    (folders["step-9"] / "README.md").write_text("Another commit.")
    empty_hub.branches["org/twice"] = {"main": folders["step9"], **folders, "step-10": folders["step5"]}
    empty_hub.tags["org/twice"] = {"step_10": folders["step5"]}
    empty_hub.forget()
    done = warm_with_hub.run("checkpoints", "org/twice", "--revisions", "all", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["revision"] for row in json.loads(done.stdout)] == ["step9", "step-10"]
    assert done.stderr.count("\n") == 1
    assert "different weights, which are left out unless `revisions` names them: step5 and step-5" in done.stderr
    assert not empty_hub.sent
    done = warm_with_hub.run("checkpoints", "org/twice")
    assert "step-9 (the weights of step9)" in done.stdout
    assert "main (no checkpoint of the run)" in done.stdout
