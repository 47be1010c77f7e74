"""Sweeps over a repository of the Hub: downloaded one ahead, thrown away as told, and never twice."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from report_trees import read_analyses
from sweep_outputs import age, files_of
from tiny_models import make_model

from lmsat_plugin.page.chart_data import chart_data
from lmsat_plugin.page.commands import NAME

if TYPE_CHECKING:
    import subprocess

    from fake_hub import FakeHub

REPOSITORY = "org/small"


@pytest.fixture
def hub(empty_hub, tmp_path, tokenizer):
    """Return a Hub with one repository of four revisions, in two shards each."""
    folders = {}
    for index, revision in enumerate(("step0", "step10", "step100")):
        folders[revision] = tmp_path / "hub" / revision
        make_model("gpt_neox", index).save_pretrained(folders[revision], max_shard_size="200KB")
        tokenizer.save_pretrained(folders[revision])
    folders["main"] = folders["step100"]
    empty_hub.branches[REPOSITORY] = folders
    empty_hub.forget()
    return empty_hub


@pytest.fixture
def sweep(tmp_path, corpus_file, warm_with_hub):
    """Return a function that runs a sweep against the Hub in a process of its own."""

    def run(*arguments: str, **changes) -> subprocess.CompletedProcess:
        values = {
            "models": [{"pretrained": REPOSITORY, "tokens_per_step": 1000}],
            "tasks": ["lmsat_loss", "lmsat_head"],
            "corpus": str(corpus_file),
            "max_tokens": 400,
            "output": str(tmp_path / "out"),
            **changes,
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(values), "utf-8")
        return warm_with_hub.run("sweep", str(path), *arguments)

    return run


def weights_sent(hub: FakeHub) -> int:
    return sum(size for path, size in hub.sent.items() if path.endswith(".safetensors"))


def test_a_repository_is_swept(sweep, hub, tmp_path):
    planned = sweep("--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert not (tmp_path / "out").exists()

    # The head alone: the other shard of each checkpoint is not fetched.
    whole = sum(path.stat().st_size for path in (tmp_path / "hub").rglob("*.safetensors"))
    done = sweep(tasks=["lmsat_head"], keep=0)
    assert done.returncode == 0, done.stderr
    assert 0 < weights_sent(hub) < whole
    assert len(files_of(tmp_path / "out")) == 3

    done = sweep()
    assert done.returncode == 0, done.stderr
    assert "3 measured" in done.stdout
    found = files_of(tmp_path / "out")
    added = {path: doc for path, doc in found.items() if "lmsat_loss" in doc["results"]}
    assert {Path(path).parts[:2] for path in added} == {("org__small", f"step{n}") for n in (0, 10, 100)}
    for document in added.values():
        said = document["config"]["lmsat"]["checkpoint"]
        assert said["commit"] == hub.commit(REPOSITORY, said["revision"])
        assert said["tokens"] == 1000 * said["step"]
        assert document["config"]["model_args"] == {"pretrained": REPOSITORY, "revision": said["revision"]}
        assert document["config"]["lmsat"]["commit"] == said["commit"]
        assert document["config"]["model_sha"] == said["commit"]
    # `keep` is 1 by default.
    assert len(list((tmp_path / "out/.lmsat/downloads").rglob(".complete"))) == 1

    # What is done is not fetched again.
    before = weights_sent(hub)
    again = sweep()
    assert (again.returncode, weights_sent(hub)) == (0, before)
    assert "0 measured, 3 done before" in again.stdout

    # A branch that moves is another checkpoint, whose old result stays.
    shutil.copytree(tmp_path / "hub/step10", tmp_path / "hub/moved")
    hub.branches[REPOSITORY]["step0"] = tmp_path / "hub/moved"
    moved = sweep()
    assert moved.returncode == 0, moved.stderr
    assert "1 measured, 2 done before" in moved.stdout
    assert "Identical weights: org/small step0, org/small step10" in moved.stdout
    [old] = [path for path in added if "/step0/" in path]
    assert (tmp_path / "out" / old).exists()


def test_a_repository_is_swept_from_its_name(warm_with_hub, hub, tmp_path, corpus_file):
    words = [REPOSITORY, "--corpus", str(corpus_file), "--tasks", "lmsat_head", "--output", str(tmp_path / "out")]
    done = warm_with_hub.run("sweep", *words, "--tokens-per-step", "1000", "--revisions", "log:2", "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert "2 measured" in done.stdout
    found = files_of(tmp_path / "out")
    assert {Path(path).parts[:2] for path in found} == {("mine", "step0"), ("mine", "step100")}
    noted = [document["config"]["lmsat"]["checkpoint"] for document in found.values()]
    assert sorted(checkpoint["tokens"] for checkpoint in noted) == [0, 100_000]


def test_results_of_before_prefix_need_no_weights(sweep, hub, tmp_path):
    """What ``auto`` is for them is read from the tokenizer of one revision: the others have the same."""
    assert sweep(tasks=["lmsat_loss"]).returncode == 0
    age(tmp_path / "out")
    first = files_of(tmp_path / "out")
    hub.forget()
    again = sweep(tasks=["lmsat_loss"])
    assert again.returncode == 0, again.stderr
    assert "0 measured, 3 done before" in again.stdout
    assert files_of(tmp_path / "out") == first
    assert weights_sent(hub) == 0
    assert hub.sent["tokenizer.json"] <= (tmp_path / "hub/step0/tokenizer.json").stat().st_size


def test_what_the_hub_refuses_for_a_while_is_waited_out(sweep, hub, tmp_path):
    """Also of what huggingface_hub does not ask for again."""
    hub.troubles = [("/refs", 503, {}), ("/revision/", 429, {"Retry-After": "2"}), ("/resolve/", 500, {})]
    begun = time.monotonic()
    done = sweep(tasks=["lmsat_head"])
    assert (done.returncode, hub.troubles) == (0, []), done.stderr
    assert "3 measured" in done.stdout
    assert "Again in 1 s: the Hub answers HTTP 503 for org/small" in done.stderr
    assert "org/small step0: again in 2 s: the Hub refuses" in done.stderr
    assert time.monotonic() - begun > 3
    assert not list((tmp_path / "out").rglob("failures.json"))


def test_what_the_hub_refuses_is_one_sentence(sweep, hub, tmp_path):
    for changes, says in (
        ({"models": [{"pretrained": REPOSITORY, "revisions": ["step7"]}]}, "step7"),
        ({"models": ["org/nothing"]}, "org/nothing"),
    ):
        done = sweep(**changes)
        assert done.returncode == 2
        assert done.stderr.startswith("lmsat: error:")
        assert says in done.stderr
        assert done.stderr.count("\n") == 1

    # A checkpoint that does not arrive is a failure of its own; the others are measured.
    for folder in ("step10",):
        (tmp_path / "hub" / folder / "config.json").write_text("{", "utf-8")
    done = sweep(keep="all")
    assert done.returncode == 1
    assert "2 measured, 0 done before, 1 failed" in done.stdout
    assert "Traceback" not in done.stderr
    [record] = (tmp_path / "out").rglob("failures.json")
    assert record.parent.name == "step10"
    assert json.loads(record.read_text())["checkpoint"]["commit"] == hub.commit(REPOSITORY, "step10")


def test_averages_share_the_downloads_of_their_parts(sweep, hub, tmp_path):
    """Each checkpoint is fetched once, though keep=0 would delete it when it is measured."""
    changes = {"tasks": ["lmsat_loss"], "keep": 0}
    models = [{"pretrained": REPOSITORY, "revisions": ["step*", "average:2", "ema:0.5"]}]
    planned = sweep("--dry-run", models=models, **changes)
    assert planned.returncode == 0, planned.stderr
    done = sweep(models=models, **changes)
    assert done.returncode == 0, done.stderr
    names = {Path(path).parts[1].rpartition("-")[0] or Path(path).parts[1] for path in files_of(tmp_path / "out")}
    assert len(names) == 8, names
    whole = sum(path.stat().st_size for step in (0, 10, 100) for path in hub_files(tmp_path, step))
    assert weights_sent(hub) == whole
    again = sweep(models=models, **changes)
    assert again.returncode == 0, again.stderr
    assert weights_sent(hub) == whole
    [notes] = [
        document["config"]["lmsat"]["checkpoint"]
        for document in files_of(tmp_path / "out").values()
        if document["config"]["lmsat"]["checkpoint"]["revision"] == "average:2@step10"
    ]
    assert {part["pretrained"] for part in notes["average"]["of"]} == {REPOSITORY}
    [command] = {
        one for one in chart_data(read_analyses(tmp_path / "out")).content["commands"] if one.startswith("lmsat ")
    }
    assert command.startswith(f"lmsat sweep {REPOSITORY} --revisions {NAME} --tasks lmsat_loss ")
    assert [part["commit"] for part in notes["average"]["of"]] == [
        hub.commit(REPOSITORY, "step0"),
        hub.commit(REPOSITORY, "step10"),
    ]


def hub_files(tmp_path: Path, step: int) -> list[Path]:
    return list((tmp_path / "hub" / f"step{step}").glob("*.safetensors"))


@pytest.mark.parametrize("keep", [0, 1])
def test_a_checkpoint_that_is_a_reference_is_fetched_once(sweep, hub, tmp_path, keep):
    done = sweep(
        tasks=["lmsat-similarity", "lmsat-weights"],
        models=[{"pretrained": REPOSITORY, "revisions": ["step0", "step10", "step100"]}],
        metadata={"similarity_tokens": 100},
        keep=keep,
    )
    assert done.returncode == 0, done.stderr
    whole = sum(path.stat().st_size for path in (tmp_path / "hub").rglob("*.safetensors"))
    assert weights_sent(hub) == whole
    notes = [
        document["config"]["lmsat"]["probes"]["weights"] for _, document in sorted(files_of(tmp_path / "out").items())
    ]
    commits = [hub.commit(REPOSITORY, revision) for revision in ("step0", "step10")]
    assert [note.get("reference") for note in notes] == [
        None,
        {"name": "step0", "pretrained": f"{REPOSITORY}@step0", "weights": commits[0]},
        {"name": "step10", "pretrained": f"{REPOSITORY}@step10", "weights": commits[1]},
    ]
    assert len(list((tmp_path / "out/.lmsat/downloads").rglob(".complete"))) == keep
