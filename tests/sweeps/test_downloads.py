"""Checkpoints of a fake Hub: downloaded, cut off, continued, thrown away."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from fake_hub import FORBIDDEN, GATED, JUNK, FakeHub, hub_environment, run_with_hub
from tiny_models import make_model

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import PART
from lmsat_plugin.hub import HubFile
from lmsat_plugin.model.checkpoint_files import needed_files
from lmsat_plugin.series.finding import Checkpoint
from lmsat_plugin.sweeps import downloads as downloads_module
from lmsat_plugin.sweeps.downloads import Downloads
from lmsat_plugin.sweeps.weights import read_ahead


def hub_checkpoint(commit: str, revision: str = "main", repository: str = "org/m") -> Checkpoint:
    return Checkpoint(model=repository, pretrained=repository, revision=revision, commit=commit)


def put(folder: Path, checkpoint: Checkpoint) -> Path:
    """Lay down what a finished download leaves."""
    place = folder / "org__m" / str(checkpoint.commit)
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(b"x")
    (place / ".complete").touch()
    return place


@pytest.mark.parametrize("keep", [0, 1, 2, None])
def test_the_latest_released_are_kept(tmp_path, keep):
    checkpoints = [hub_checkpoint(c * 40) for c in "abcd"]
    places = [put(tmp_path, checkpoint) for checkpoint in checkpoints]
    # Neither clocks nor names matter, nor which process it is.
    for place, age in zip(places, (0, 1, 2, 3), strict=True):
        os.utime(place, (1e9 - age, 1e9 - age))
    for checkpoint, place in zip(checkpoints[:3], places, strict=False):
        downloads = Downloads(tmp_path, keep)
        assert downloads.size(checkpoint) == 0
        assert downloads.fetch(checkpoint) == place
        downloads.release(checkpoint)
    kept = 3 if keep is None else keep
    assert [place.exists() for place in places] == [n >= 3 - kept for n in range(3)] + [True]
    assert {path.name for path in (tmp_path / "org__m").iterdir()} == {p.name for p in places if p.exists()}


def test_what_is_in_use_is_not_deleted(tmp_path):
    a, b, c = (hub_checkpoint(letter * 40) for letter in "abc")
    places = [put(tmp_path, checkpoint) for checkpoint in (a, b, c)]
    ours, theirs = Downloads(tmp_path, 1), Downloads(tmp_path, 0)
    ours.fetch(a)
    ours.release(a)
    ours.fetch(a)  # for another sweep
    theirs.fetch(b)
    theirs.release(b)
    assert [place.exists() for place in places] == [True, False, True]
    (places[0] / ".released").write_text("rubbish")
    ours.release(c)
    assert [place.exists() for place in places] == [False, False, True]
    ours.release(b)  # gone already
    put(tmp_path, a).rename(tmp_path / "org__m" / ".trash-0")
    (tmp_path / "org__m" / ".trash-0" / ".released").write_text("9")
    ours.fetch(c)
    ours.release(c)
    assert places[2].exists()
    local = Checkpoint(model="m", pretrained=str(tmp_path), revision="main", folder=tmp_path)
    assert ours.fetch(local) == tmp_path
    ours.release(local)
    assert ours.size(local) == 0


def test_a_commit_that_several_use_is_kept_until_the_last_is_through(tmp_path):
    """Two branches may be of one commit, and one branch may be measured under two names."""
    main = hub_checkpoint("a" * 40)
    users = [main, replace(main, revision="step9"), replace(main, model="bfloat16")]
    place, downloads = put(tmp_path, main), Downloads(tmp_path, 0)
    for user in users:
        assert downloads.fetch(user) == place
    for user in users[:2]:
        downloads.release(user)
        downloads.release(user)
        assert (place / ".complete").exists()
    Downloads(tmp_path, 0).release(users[2])
    assert not place.exists()


def test_several_release_at_once(tmp_path):
    checkpoints = [hub_checkpoint(f"{n:040x}") for n in range(16)]
    places = [put(tmp_path, checkpoint) for checkpoint in checkpoints]

    def use(checkpoint: Checkpoint) -> None:
        downloads = Downloads(tmp_path, 2)
        downloads.fetch(checkpoint)
        downloads.release(checkpoint)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, checkpoints))
    assert sum(place.exists() for place in places) == 2
    assert {int((place / ".released").read_text()) for place in places if place.exists()} == {15, 16}


def test_what_a_kill_left_half_deleted_or_half_written_is_removed(tmp_path):
    stray = tmp_path / "org__m" / ".trash-0"
    put(tmp_path, hub_checkpoint("a" * 40)).rename(stray)
    (part := put(tmp_path, hub_checkpoint("b" * 40)) / f"..released.0{PART}").touch()
    Downloads(tmp_path, 1)
    assert not any(path.exists() for path in (stray, part))


def test_a_name_from_outside_stays_inside(tmp_path):
    put(tmp_path, checkpoint := hub_checkpoint("a" * 40))
    odd = hub_checkpoint("../../x", repository="../..")
    downloads = Downloads(tmp_path / "d", 0)
    with pytest.raises(LmsatError):
        downloads.fetch(odd)
    assert downloads._place(odd).resolve().is_relative_to(tmp_path / "d")
    assert downloads._place(checkpoint).parent.name == "org__m"


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    checkpoint, usage = hub_checkpoint("a" * 40, "step5"), namedtuple("usage", "free")
    monkeypatch.setattr(downloads_module.constants, "HF_HUB_OFFLINE", False)
    files = {"config.json": HubFile(10, None), "model.safetensors": HubFile(2_000_000_000, None)}
    monkeypatch.setattr("lmsat_plugin.sweeps.listings.list_files", lambda *_: files)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2_050_000_000))
    downloads = Downloads(tmp_path, 1)
    assert downloads.size(checkpoint) == 2_000_000_010
    with pytest.raises(LmsatError, match=r"org/m at step5 needs 2.10 GB, but .* has 2.05 GB free: free space"):
        downloads.fetch(checkpoint)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(3_000_000_000))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads_module, "fetch_files", full)
    with pytest.raises(LmsatError, match="no space is left for org/m at step5: free space"):
        downloads.fetch(checkpoint)
    monkeypatch.setattr(downloads_module, "fetch_files", lambda *_, **__: None)
    with pytest.raises(LmsatError, match=r"config.json did not arrive: check the connection"):
        downloads.fetch(checkpoint)
    assert not (tmp_path / "org__m" / checkpoint.commit / ".complete").exists()


START = """
import json, sys
from pathlib import Path
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.series.finding import find_checkpoints
from lmsat_plugin.series.selection import select
from lmsat_plugin.sweeps.downloads import Downloads
folder = Path(sys.argv[1])
found = {c.revision: c for c in find_checkpoints("org/m")}
def listed(place):
    return sorted(p.name for p in place.iterdir() if p.is_file() and p.name[0] != ".")
def refused(call):
    try:
        call()
    except LmsatError as error:
        assert "\\n" not in str(error)
        return str(error)
"""


@pytest.fixture
def hub(tmp_path, tokenizer):
    """Return a Hub with two real checkpoints in shards, and one in one file, among much else."""
    folders = {}
    for seed, name in enumerate(("step0", "step1", "main")):
        folder = tmp_path / "files" / name
        make_model("llama", seed).save_pretrained(folder, max_shard_size="100KB" if name != "main" else "5GB")
        tokenizer.save_pretrained(folder)
        for junk in JUNK:
            if name != "main" or junk != "pytorch_model.bin":
                (folder / junk).parent.mkdir(exist_ok=True)
                (folder / junk).write_bytes(os.urandom(1000))
        folders[name] = folder
    made = FakeHub({"org/m": folders, "org/gated": folders})
    yield made
    made.close()


def run(hub: FakeHub, tmp_path: Path, code: str, **environment: str) -> list[str]:
    """Run code after `START`; return the lines it prints."""
    home, folder = tmp_path / "home", tmp_path / "downloads"
    done = run_with_hub(hub, home, START + code, str(folder), **environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_the_head_and_then_the_rest(hub, tmp_path):
    source = hub.branches["org/m"]["step1"]
    shards = {path.name for path in source.glob("model-*.safetensors")}
    head = json.loads((source / "model.safetensors.index.json").read_text())["weight_map"]["lm_head.weight"]
    needed = needed_files({path.name: path.stat().st_size for path in source.iterdir() if path.is_file()})
    assert len(shards) > 3
    code = """
downloads = Downloads(folder, 1)
before = downloads.size(found["step1"])
place = downloads.fetch(found["step1"], head_only=True)
assert downloads.fetch(found["step1"], head_only=True) == place
print(json.dumps([before, downloads.size(found["step1"]), str(place), listed(place)]))
"""
    before, after, place, files = json.loads(*run(hub, tmp_path, code))
    assert place == str(tmp_path / "downloads" / "org__m" / hub.commit("org/m", "step1"))
    assert before == sum(needed.values())
    assert after == sum(needed[name] for name in shards - {head})
    assert set(files) == {*needed} - (shards - {head})
    assert hub.sent == {name: needed[name] for name in files}
    assert sum(count for key, count in hub.requests.items() if "/revision/" in key) == 1

    hub.forget()
    code = """
downloads = Downloads(folder, 1)
place = downloads.fetch(found["step1"])
assert downloads.fetch(found["step1"]) == Downloads(folder, 1).fetch(found["step1"], head_only=True) == place
assert downloads.size(found["step1"]) == 0
print(json.dumps(listed(place)))
downloads.release(found["step1"])

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
main = found["main"]
with ThreadPoolExecutor(3) as pool:
    three = [replace(main, model=name) for name in "abc"]
    assert len(set(pool.map(lambda checkpoint: Downloads(folder, 0).fetch(checkpoint), three))) == 1
"""
    assert set(json.loads(*run(hub, tmp_path, code))) == {*needed}
    small = {name: count for name, count in hub.sent.items() if name not in shards}
    assert {name: hub.sent[name] for name in shards} == {**{name: needed[name] for name in shards}, head: 0}
    main = hub.branches["org/m"]["main"]
    assert small == needed_files({path.name: path.stat().st_size for path in main.iterdir() if path.is_file()})
    assert read_ahead(Path(place)) == read_ahead(source)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(place)
    assert torch.equal(loaded.lm_head.weight, make_model("llama", 1).lm_head.weight)
    assert len(transformers.AutoTokenizer.from_pretrained(place)) == 512


def test_what_lies_in_the_users_own_cache_is_used_from_there(hub, tmp_path):
    """And stays, even offline; what lies there in part is no use then."""
    code = """
import transformers
transformers.AutoModelForCausalLM.from_pretrained("org/m", revision="step0")
transformers.AutoTokenizer.from_pretrained("org/m", revision="step0")
transformers.AutoConfig.from_pretrained("org/m")
"""
    run(hub, tmp_path, code)
    hub.forget()
    code = """
downloads = Downloads(folder, 0)
assert downloads.size(found["step0"]) == 0
place = downloads.fetch(found["step0"])
downloads.release(found["step0"])
print(place, len(listed(place)))
print(refused(lambda: print(downloads.size(found["main"]))))
"""
    cache = tmp_path / "home" / "hub" / "models--org--m" / "snapshots" / hub.commit("org/m", "step0")
    first, *rest = run(hub, tmp_path, code)
    assert first.startswith(str(cache))
    main = hub.branches["org/m"]["main"]
    assert int(rest[0]) == sum(needed_files({path.name: path.stat().st_size for path in main.iterdir()}).values())
    assert not hub.sent
    hub.forget()
    again, refusal = run(hub, tmp_path, code, HF_HUB_OFFLINE="1")
    assert again == first
    assert refusal.startswith("org/m at main is not in the cache")
    assert not hub.requests


def test_a_download_that_is_cut_is_continued(hub, tmp_path):
    """By a kill, and by the connection."""
    source = hub.branches["org/m"]["main"]
    size = (source / "model.safetensors").stat().st_size
    place = tmp_path / "downloads" / "org__m" / hub.commit("org/m", "main")
    code = 'print(Downloads(folder, 1).fetch(found["main"]))'
    hub.seconds_per_block = 1.0
    process = subprocess.Popen(
        [sys.executable, "-c", START + code, str(tmp_path / "downloads")],
        env=hub_environment(hub, tmp_path / "home"),
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not ((place / "config.json").exists() and list(place.rglob("*.incomplete"))):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert not (place / ".complete").exists()
    assert not (place / "model.safetensors").exists()
    assert list(place.rglob("*.incomplete"))

    # A file of the wrong size is not trusted.
    (place / "config.json").write_text("{}")
    hub.seconds_per_block = 0.0
    hub.cut["model.safetensors"] = size // 2
    assert run(hub, tmp_path, code) == [str(place)]
    assert not hub.cut
    assert read_ahead(place) == read_ahead(source)
    assert (place / "config.json").read_bytes() == (source / "config.json").read_bytes()
    assert not list(place.rglob("*.incomplete"))
    listed = json.loads((place / ".complete").read_bytes())
    digest = hashlib.sha256((source / "model.safetensors").read_bytes()).hexdigest()
    assert listed["model.safetensors"] == [size, digest]


def test_refusals_are_one_sentence(hub, tmp_path):
    hub.refuse = {"org/gated": GATED, "org/forbidden": FORBIDDEN}
    bare = tmp_path / "files" / "bare"
    shutil.copytree(hub.branches["org/m"]["main"], bare)
    (bare / "model.safetensors").unlink()
    hub.branches["org/m"]["bare"] = bare
    (tmp_path / "file").touch()
    code = """
import os, time, urllib.request
from dataclasses import replace
main, downloads = found["main"], Downloads(folder, 1)
for checkpoint in (
    replace(main, commit="9" * 40, revision="gone"),
    replace(main, pretrained="org/gated"),
    replace(main, pretrained="org/forbidden"),
    replace(main, pretrained="org/nothing"),
    found["bare"],
):
    print(refused(lambda: downloads.fetch(checkpoint)))
print(refused(lambda: Downloads(folder.with_name("file") / "x", 1).fetch(main)))
downloads.size(main)
urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/end").read()
time.sleep = lambda _: None
print(refused(lambda: downloads.fetch(main)))
print(refused(lambda: downloads.fetch(found["step0"])))
assert not list(folder.rglob(".complete"))
"""
    for line, says in zip(
        run(hub, tmp_path, code),
        (
            "org/m has no revision gone: `lmsat checkpoints org/m` lists them",
            "org/gated is gated: accept the terms at https://huggingface.co/org/gated, then `hf auth login`",
            "the Hub refuses org/forbidden at main (HTTP 403)",
            "the Hub has no org/nothing, or it is private",
            "org/m at bare has no weights",
            f"cannot write to {tmp_path}/file/x",
            # The latter where a connection that is still open breaks.
            ("org/m at main: config.json did not arrive: check the connection", "org/m at main cannot be had"),
            "org/m at step0 cannot be had from the Hub",
        ),
        strict=True,
    ):
        assert line.startswith(says), line


def test_a_file_of_another_sha256_is_not_taken(hub, tmp_path):
    """Not when it arrives, and not when it has changed since; nor one of the user's own cache."""
    place = tmp_path / "downloads" / "org__m" / hub.commit("org/m", "main")
    code = """
downloads, main = Downloads(folder, None), found["main"]
print(refused(lambda: print(downloads.fetch(main))))
print(downloads.fetch(main))
weights = Path(downloads.fetch(main)) / "model.safetensors"
data = bytearray(weights.read_bytes())
data[-1] ^= 1
weights.write_bytes(data)
assert Downloads(folder, None).fetch(main) == weights.parent
assert weights.read_bytes() != data
weights.unlink()
assert Downloads(folder, None).size(main) > 0
assert Downloads(folder, None).fetch(main, head_only=True) == weights.parent and weights.exists()
"""
    hub.spoil["model.safetensors"] = 2
    refusal, again = run(hub, tmp_path, code)
    assert refusal.startswith("org/m at main: model.safetensors did not arrive as it is on the Hub (its digest is ano")
    assert again == str(place)
    assert read_ahead(place) == read_ahead(hub.branches["org/m"]["main"])

    code = """
from huggingface_hub import snapshot_download
cached = Path(snapshot_download("org/m", revision=found["main"].commit))
weights = cached / "model.safetensors"
data = bytearray(weights.read_bytes())
data[-1] ^= 1
weights.resolve().write_bytes(data)
print(Downloads(folder.with_name("other"), None).fetch(found["main"]))
assert weights.read_bytes() == data
"""
    assert run(hub, tmp_path, code) == [str(tmp_path / "other" / "org__m" / place.name)]


def test_what_a_dead_process_held_is_released(hub, tmp_path):
    """What a living one holds is not."""
    run(hub, tmp_path, 'import os; Downloads(folder, 0).fetch(found["step0"]); sys.stdout.flush(); os._exit(0)')
    names = "step0", "step1", "main"
    dead, living, own = (tmp_path / "downloads" / "org__m" / hub.commit("org/m", name) for name in names)
    assert (dead / ".complete").exists()
    code = """
other, downloads = Downloads(folder, 0), Downloads(folder, 0)
other.fetch(found["step1"])
downloads.fetch(found["main"])
downloads.release(found["main"])
"""
    run(hub, tmp_path, code)
    assert [place.exists() for place in (dead, living, own)] == [False, True, False]
    (dead.parent / "unmarked").mkdir()
    run(hub, tmp_path, "Downloads(folder, 1).clean()")
    assert len(list(dead.parent.glob("[!.]*"))) == 1
    assert not list(dead.parent.glob("*/.used-*"))


def test_a_server_that_trickles_is_given_up(hub, tmp_path):
    """With a line before that says who is waited for; the next try does not wait for the first one's locks."""
    code = """
import time
from lmsat_plugin.sweeps import transfers
transfers.PATIENCE = 2.0
began = time.monotonic()
print(refused(lambda: print(Downloads(folder, 1).fetch(found["main"]))))
print(time.monotonic() - began)
print(refused(lambda: print(Downloads(folder, 1).fetch(found["main"]))))
assert not list(folder.rglob(".complete"))
"""
    hub.block, hub.seconds_per_block = 16, 0.2
    done = run_with_hub(hub, tmp_path / "home", START + code, str(tmp_path / "downloads"))
    assert done.returncode == 0, done.stderr[-2000:]
    first, seconds, second = done.stdout.splitlines()
    for refusal in (first, second):
        assert refusal.startswith("org/m at main cannot be had from the Hub (127.0.0.1 has sent ")
        assert "kB in 2 s, less than 10 kB/s: waited for " in refusal
    assert float(seconds) < 8
    assert "Waiting for " in done.stderr
    hub.block, hub.seconds_per_block = 1 << 16, 0.0
    code = 'print(Downloads(folder, 1).fetch(found["main"]))'
    place = tmp_path / "downloads" / "org__m" / hub.commit("org/m", "main")
    assert run(hub, tmp_path, code) == [str(place)]
