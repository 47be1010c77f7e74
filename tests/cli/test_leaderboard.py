"""``lmsat leaderboard``: formats, files, and errors in one sentence."""

from __future__ import annotations

import json

import pytest
from result_trees import Made, write_result, write_tree

from lmsat_plugin.cli.main import main


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    write_tree(root, [Made(f"org/m{size}", 10**6 * 4**size) for size in range(3)], (1000, 2000), tasks={})
    return root


def test_command(tree, tmp_path, capsys):
    arguments = ["leaderboard", str(tree), "--tokens-per-step", "2000000"]
    assert main([*arguments, "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 3
    assert main(arguments) == 0
    assert "Ranked by loss" in capsys.readouterr().out
    assert main([*arguments, "--format", "html", "--output", str(tmp_path / "l.html")]) == 0
    assert (tmp_path / "l.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_bad_input(tree, tmp_path, capsys):
    nothing, others, file = tmp_path / "nothing", tmp_path / "others", tmp_path / "file"
    nothing.mkdir()
    file.write_text("", "utf-8")
    write_result(others, "m", 1, {"nobody_knows": {"acc": 0.5}})
    cases = [
        ([nothing], "holds no lm-eval results"),
        ([others], "neither lmsat_loss nor scores of a task whose chance level is known"),
        ([tree, "--corpus", "x"], "no result has --corpus x"),
        ([tree, "--push", "a/b"], "--push a/b needs a folder to upload: add --hub FOLDER"),
        ([tree, "--output", file], "takes no table for people"),
        ([tree, "--hub", file / "sub"], f"cannot write to {file / 'sub'}"),
        ([tree, "--format", "csv", "--output", file / "x.csv"], "cannot write"),
    ]
    for arguments, said in cases:
        assert main(["leaderboard", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
