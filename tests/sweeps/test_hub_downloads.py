"""Folders of a repository are fetched alone, and a Hub that refuses a third of all requests is waited out."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import yaml
from fake_hub import BLOCK, run_with_hub
from sweep_outputs import content_of

from lmsat_plugin.sweeps.listings import files_to_load
from lmsat_plugin.sweeps.weights import read_ahead

if TYPE_CHECKING:
    from pathlib import Path

FETCH = """
import json, sys
from dataclasses import replace
from pathlib import Path
from lmsat_plugin.series.finding import find_checkpoints
from lmsat_plugin.sweeps.downloads import Downloads
from lmsat_plugin.sweeps.listings import Listings
folder = Path(sys.argv[1])
found = {c.revision: c for c in find_checkpoints("org/folders")}
downloads = Downloads(folder / "downloads", 0, listings=Listings(folder / "listings"))
first, second = found["step20"], found["step100"]
sizes = [downloads.size(first), downloads.size(second)]
paths = [downloads.fetch(first), downloads.fetch(second)]
assert downloads.fetch(first, head_only=True) == paths[0]
print(json.dumps([[str(path) for path in paths], sizes, downloads.content(first) == downloads.content(second)]))
own = paths[1] / "tokenizer.json"
own.write_text("{}")
assert Downloads(folder / "downloads", 0).fetch(second) == paths[1]
assert own.read_text() != "{}"
downloads.release(first)
assert paths[1].exists() and not paths[0].exists()
"""

IMPATIENT = """
import sys, time
from lmsat_plugin import passing
from lmsat_plugin.cli.main import main
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))
passing.PAUSES = (0.01,) * len(passing.PAUSES)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def root(random_checkpoint, tmp_path) -> Path:
    """Return a repository of two checkpoints in folders, with the tokenizer in the root, and much else."""
    root = tmp_path / "repository"
    for seed, name in enumerate(("step20", "step100")):
        shutil.copytree(random_checkpoint(seed, "gpt_neox"), root / name)
        for file in (root / name).glob("*token*"):
            shutil.move(file, root / file.name)
        (root / name / "optimizer.pt").write_bytes(b"x" * 10_000)
    (root / "README.md").write_text("A series.")
    return root


def test_a_folder_is_fetched_alone(empty_hub, root, tmp_path):
    """With what lies above it; of two in one commit each has its own place, and a transfer that breaks off goes on."""
    empty_hub.branches["org/folders"] = {"main": root}
    size = (root / "step20/model.safetensors").stat().st_size
    empty_hub.cut["step20/model.safetensors"] = size // 2
    empty_hub.forget()
    done = run_with_hub(empty_hub, tmp_path / "home", FETCH, str(tmp_path / "d"))
    assert done.returncode == 0, done.stderr[-2000:]
    paths, sizes, are_equal = json.loads(done.stdout)
    assert not are_equal
    assert not empty_hub.cut
    assert size <= empty_hub.sent["step20/model.safetensors"] <= size + BLOCK
    assert not [name for name in empty_hub.sent if "optimizer" in name or "README" in name]
    needed = ("config.json", "generation_config.json", "model.safetensors")
    above = sum(path.stat().st_size for path in root.glob("*token*"))
    for name, stated in zip(("step20", "step100"), sizes, strict=True):
        assert stated == above + sum((root / name / file).stat().st_size for file in needed)
    commit = empty_hub.commit("org/folders", "main")
    assert [path.rpartition("/downloads/")[2] for path in paths] == [
        f"org__folders/{commit}__{name}/{name}" for name in ("step20", "step100")
    ]
    assert read_ahead(tmp_path / "d/downloads/org__folders" / f"{commit}__step100" / "step100") == read_ahead(
        root / "step100"
    )
    # Names by one request, files by another.
    listings = {key: count for key, count in empty_hub.requests.items() if "/api/" in key}
    assert sum(listings.values()) == 2, listings


def test_a_hub_that_refuses_a_third_of_all_requests_is_waited_out(
    empty_hub, warm_with_hub, random_checkpoint, tmp_path
):
    empty_hub.branches["org/busy"] = {f"step{n}": random_checkpoint(n, "gpt_neox") for n in range(3)}
    contents, script = [], tmp_path / "impatient.py"
    script.write_text(IMPATIENT, "utf-8")
    for share in (0.0, 1 / 3):
        output, path = tmp_path / f"{share:.2f}", tmp_path / "sweep.yaml"
        values = {"models": ["org/busy"], "tasks": ["lmsat_head"], "output": str(output)}
        path.write_text(yaml.safe_dump(values), "utf-8")
        empty_hub.flaky = share
        try:
            done = warm_with_hub.run(str(script), "sweep", str(path))
        finally:
            empty_hub.flaky = 0.0
        assert done.returncode == 0, done.stderr
        assert "3 measured" in done.stdout
        assert not list(output.rglob("failures.json"))
        contents.append(content_of(output))
    assert contents[0] == contents[1]


def test_the_list_as_json(empty_hub, warm_with_hub, random_checkpoint, tmp_path):
    """With run, stage and words, in the order of training; sizes by a request for each revision, nothing for none."""
    whole, bare = random_checkpoint(0, "gpt_neox"), tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text("{}")
    names = ("stage2-ingredient1-step10-tokens1B", "stage1-step200-tokens2B", "stage1-step30-tokens1B")
    empty_hub.branches["org/listed"] = {**dict.fromkeys(names[:2], whole), names[2]: bare, "main": bare}
    empty_hub.branches["org/heard"] = {"chck_2M": whole, "chck_10M": whole}
    empty_hub.troubles = [("/refs", 429, {}), ("/revision/", 503, {})]
    done = warm_with_hub.run("checkpoints", "org/listed", "--json", "--sizes", "--revisions", "all")
    assert done.returncode == 0, done.stderr
    assert empty_hub.troubles == []
    size = (whole / "model.safetensors").stat().st_size
    keys = ("revision", "run", "stage", "step", "tokens", "words", "size")
    assert [tuple(row[key] for key in keys) for row in json.loads(done.stdout)] == [
        (names[2], None, "stage1", 30, 1e9, None, None),
        (names[1], None, "stage1", 200, 2e9, None, size),
        (names[0], "ingredient1", "stage2", 10, 1e9, None, size),
    ]
    shown = warm_with_hub.run("checkpoints", "org/listed").stdout
    assert "Left out: main (no checkpoint of the run)" in shown
    assert all(column in shown for column in ("run", "stage", "ingredient1"))
    shown = warm_with_hub.run("checkpoints", "org/heard").stdout
    assert [line.split()[:2] for line in shown.splitlines() if "chck" in line] == [
        ["chck_2M", "2,000,000"],
        ["chck_10M", "10,000,000"],
    ]


@pytest.mark.parametrize(
    ("subfolder", "expected"),
    [
        ("a/step1", {"a/step1/config.json", "a/step1/model.safetensors", "a/tokenizer.json", "own.py"}),
        ("b/step1", {"b/step1/model.safetensors", "b/step1/tokenizer.json", "config.json", "own.py"}),
        (None, {"config.json", "tokenizer.json", "model.safetensors", "own.py"}),
    ],
)
def test_what_a_folder_lacks_comes_from_the_nearest_above(subfolder, expected):
    names = "a/step1/config.json a/step1/model.safetensors a/tokenizer.json b/step1/model.safetensors "
    names += "b/step1/tokenizer.json config.json tokenizer.json model.safetensors own.py a/notes.txt"
    sizes = dict.fromkeys(names.split(), 1)
    assert files_to_load(sizes, subfolder, trust_remote_code=True).keys() == expected
    assert files_to_load(sizes, subfolder).keys() == expected - {"own.py"}
