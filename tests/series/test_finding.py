"""Finding the checkpoints of a series, in folders and on a fake Hub."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING

import pytest
from fake_hub import BROKEN, FORBIDDEN, GATED, FakeHub, run_with_hub
from huggingface_hub import constants

from lmsat_plugin import passing
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.series import on_hub
from lmsat_plugin.series.finding import Checkpoint, find_checkpoints, find_series
from lmsat_plugin.series.selection import select

if TYPE_CHECKING:
    from pathlib import Path


def make(folder: Path, size: int = 0, **state: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(size))
    if state:
        (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


def named(checkpoints: list[Checkpoint]) -> list[str]:
    return [checkpoint.revision for checkpoint in checkpoints]


def test_a_folder_of_checkpoints(tmp_path):
    run = tmp_path / "my run"
    for name in ("checkpoint-500", "checkpoint-1000", "final"):
        make(run / name)
    (run / "logs").mkdir()
    (run / ".cache").mkdir()
    make(run / ".hidden-step5")
    make(run, 10)  # Trainer saves the last one beside the others
    found = find_checkpoints(str(run), tokens_per_step=8)
    assert named(found) == ["checkpoint-500", "checkpoint-1000", "final", "main"]
    assert found[0] == Checkpoint(
        model="my run",
        pretrained=str(run / "checkpoint-500"),
        revision="checkpoint-500",
        step=500,
        tokens=4000,
        total_step=500,
        total_tokens=4000,
        folder=run / "checkpoint-500",
    )
    assert {c.model for c in find_checkpoints(str(run), name="mine")} == {"mine"}


def test_relative_folders_and_links(tmp_path, monkeypatch):
    make(tmp_path / "elsewhere" / "a")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "step7").symlink_to(tmp_path / "elsewhere" / "a")
    monkeypatch.chdir(tmp_path / "run")
    [found] = find_checkpoints(".")
    assert (found.model, found.revision, found.step) == ("run", "step7", 7)
    assert found.pretrained == str(tmp_path / "run" / "step7")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_checkpoints("~/run") == [found]


def test_one_checkpoint(tmp_path):
    [found] = find_checkpoints(str(make(tmp_path / "pythia" / "step1000")))
    assert (found.model, found.revision, found.step) == ("pythia", "step1000", 1000)
    [found] = find_checkpoints(str(make(tmp_path / "SmolLM2")))
    assert (found.model, found.revision, found.step) == ("SmolLM2", "main", None)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert find_checkpoints(str(adapter))[0].folder == adapter


def test_names_of_all_sorts(tmp_path):
    names = ["a..b", '"quoted"', "with space", "<b>x&lt;", "step10", "step9", "[red]", "ckpt-2-final"]
    for name in names:
        make(tmp_path / name)
    found = find_checkpoints(str(tmp_path))
    assert set(named(found)) == set(names)
    assert named(found)[:3] == ["ckpt-2-final", "step9", "step10"]
    for name in names:
        assert named(select(found, name)) == [name]


def test_natural_order_without_steps(tmp_path):
    for name in ("v10", "v9", "v1"):
        make(tmp_path / name)
    assert named(find_checkpoints(str(tmp_path))) == ["v1", "v9", "v10"]
    found = find_checkpoints(str(tmp_path), step_pattern=r"v(?P<step>\d+)")
    assert [c.step for c in found] == [1, 9, 10]


def test_trainer_state(tmp_path, caplog):
    make(tmp_path / "epoch_3", global_step=1500, num_input_tokens_seen=0)
    make(tmp_path / "epoch_4", global_step=2000, num_input_tokens_seen=77)
    make(tmp_path / "step3000-tokens9M", global_step=3000)
    (make(tmp_path / "checkpoint-5") / "trainer_state.json").write_text('{"global_st')
    (make(tmp_path / "checkpoint-6") / "trainer_state.json").write_text('["global_step"]')
    with caplog.at_level(logging.WARNING):
        found = {c.revision: (c.step, c.tokens) for c in find_checkpoints(str(tmp_path), tokens_per_step=10)}
    assert found == {
        "checkpoint-5": (5, 50),
        "checkpoint-6": (6, 60),
        "epoch_3": (1500, 15_000),
        "epoch_4": (2000, 77),
        "step3000-tokens9M": (3000, 9_000_000),
    }
    assert caplog.text.count("is ignored") == 2
    # A pattern is what the user says, and wins.
    found = find_checkpoints(str(tmp_path), step_pattern=r"epoch_(?P<step>\d+)")
    assert [c.step for c in found if c.revision.startswith("epoch")] == [3, 4]


def test_a_checkpoint_that_is_being_written_is_left_out(tmp_path, caplog):
    make(tmp_path / "checkpoint-1")
    (tmp_path / "checkpoint-2").mkdir()
    with caplog.at_level(logging.INFO):
        assert named(find_checkpoints(str(tmp_path))) == ["checkpoint-1"]
    assert "checkpoint-2 has no config.json" in caplog.text


@pytest.mark.parametrize(
    ("pretrained", "says"),
    [
        ("{tmp}/nowhere", "there is no such folder"),
        ("./nowhere", "there is no such folder"),
        ("~nobody-here/x", "cannot be read"),
        ("a" * 300, "File name too long"),
        ("{tmp}/file", "is a file"),
        ("{tmp}/empty", "neither it nor a folder in it has a config.json"),
        ("a..b/c", "no name of the Hub"),
        ("org/not-in-the-cache", "HF_HUB_OFFLINE=1"),
    ],
)
def test_what_is_not_there_is_one_sentence(tmp_path, pretrained, says):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(LmsatError, match=says) as error:
        find_checkpoints(pretrained.format(tmp=tmp_path))
    assert "\n" not in str(error.value)


def test_offline_lists_what_is_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cache = tmp_path / "models--org--m"
    for name, commit in (("main", "a" * 40), ("step2", "b" * 40), ("seed/step1", "c" * 40), ("refs/pr/1", "d" * 40)):
        (cache / "refs" / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / "refs" / name).write_text(commit)
        (cache / "snapshots" / commit).mkdir(parents=True)
    (cache / "refs" / "gone").write_text("e" * 40)
    found = find_checkpoints("org/m")
    assert [(c.revision, c.commit) for c in found] == [
        ("seed/step1", "c" * 40),
        ("step2", "b" * 40),
        ("main", "a" * 40),
    ]


def test_the_command_lists_a_folder(tmp_path, capsys):
    run = tmp_path / "[red] <run>"
    for step, size in ((1000, 123_456), (20, 7)):
        make(run / f"step{step}", size)
    make(run / os.fsdecode(b"caf\xe9"), 7)
    assert main(["checkpoints", str(run), "--tokens-per-step", "1000"]) == 0
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines() if "step" in line and "tokens" not in line]
    assert lines == [["step20", "20", "20,000", "7", "B"], ["step1000", "1,000", "1,000,000", "123.5", "kB"]]
    assert "[red] <run>: 3 checkpoints" in shown
    assert "commit" not in shown
    assert main(["checkpoints", str(run), "--revisions", "last", "20", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["revision"], row["step"], row["tokens"], row["size"]) for row in rows] == [
        ("step20", 20, None, 7),
        ("step1000", 1000, None, 123_456),
    ]
    for arguments in (["--revisions", "log:0"], ["--tokens-per-step", "0"], ["--step-pattern", "("]):
        assert main(["checkpoints", str(run), *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_misnamed_is_not_waited_for(tmp_path, monkeypatch):
    """Without a connection the Hub is waited for, unless a folder of a similar name was meant."""
    make(tmp_path / "runs" / "olmo" / "step1")
    monkeypatch.chdir(tmp_path)
    asked: list[str] = []

    def away(repository: str) -> dict[str, str]:
        asked.append(repository)
        raise PassingError("the Hub is away", source="the server")

    monkeypatch.setattr(on_hub, "list_refs", away)
    monkeypatch.setattr(passing.time, "sleep", lambda seconds: None)
    for name, waits in (("runs/olmo2", False), ("org/model", True)):
        asked.clear()
        with pytest.raises(LmsatError):
            find_series(name, wait=True)
        assert (len(asked) > 1) == waits


def test_the_hub(tmp_path):
    """The list, its sizes, and each refusal, in one process for all."""
    folders = {name: make(tmp_path / "files" / name, 1000 + n) for n, name in enumerate(("a", "b", "c", "d"))}
    hub = FakeHub(
        {
            "org/m": {"main": folders["a"], "step10": folders["b"], "step9": folders["a"]},
            **{f"org/{name}": {"main": folders["a"]} for name in ("gated", "forbidden", "broken")},
        },
        tags={"org/m": {"step10": folders["c"], "v1.0": folders["d"]}},
    )
    hub.refuse = {"org/gated": GATED, "org/forbidden": FORBIDDEN, "org/broken": BROKEN}
    code = """
import sys
from lmsat_plugin import passing
from lmsat_plugin.cli.main import main
passing.PAUSES = (0.0,)
print("[", end="")
main(["checkpoints", "org/m", "--json"])
print(",")
main(["checkpoints", "org/m", "--json", "--sizes", "--revisions", "all", "v1.0"])
print("]")
for name in ("gated", "forbidden", "broken", "nothing"):
    assert main(["checkpoints", "org/" + name]) == 2
from huggingface_hub import constants
assert main(["checkpoints", "org/m", "--revisions", "stp10"]) == 2
"""
    done = run_with_hub(hub, tmp_path / "home", code)
    assert done.returncode == 0, done.stderr[-2000:]
    listed, sized = json.loads(done.stdout)
    assert [(row["revision"], row["step"], row["commit"]) for row in listed] == [
        ("step9", 9, hub.commit("org/m", "main")),
        ("step10", 10, hub.commit("org/m", "step10")),
        ("main", None, hub.commit("org/m", "main")),
        ("v1.0", None, hub.commit("org/m", "v1.0")),
    ]
    assert all(row["size"] is None and row["pretrained"] == row["model"] == "org/m" for row in listed)
    assert [(row["revision"], row["size"]) for row in sized] == [("step9", 1000), ("step10", 1001), ("v1.0", 1003)]
    asked = f" (HF_ENDPOINT={hub.url})"
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Again in 0 s: the Hub answers HTTP 500")]
    assert len(done.stderr.splitlines()) - len(lines) == 7
    assert lines == [
        "lmsat: error: org/gated is gated: accept the terms at https://huggingface.co/org/gated, then `hf auth login`",
        "lmsat: error: the Hub refuses org/forbidden (HTTP 403): `hf auth login` with a token that may read it" + asked,
        "lmsat: error: the Hub answers HTTP 500 for org/broken: try again later, or choose another revision" + asked,
        "lmsat: error: the Hub has no org/nothing, or it is private: correct the name, or `hf auth login`" + asked,
        "lmsat: error: revisions=stp10: org/m has no such checkpoint: did you mean step10?",
    ]
    hub.close()
    code = """
import sys
from lmsat_plugin import passing
from lmsat_plugin.cli.main import main
passing.PAUSES = (0.0,)
sys.exit(main(["checkpoints", "org/m"]))
"""
    done = run_with_hub(hub, tmp_path / "home", code)
    assert done.returncode == 2
    assert "org/m cannot be had from the Hub" in done.stderr
    assert "check the connection" in done.stderr
    assert done.stderr.count("lmsat: error") == 1
    assert done.stderr.splitlines()[-1].startswith("lmsat: error")
