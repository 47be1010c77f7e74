"""Checkpoints of a fake Hub: downloaded, cut off, continued, thrown away; and what identifies weights."""

from __future__ import annotations

import errno
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

import numpy as np
import pytest
import torch
import transformers
from fake_hub import FORBIDDEN, GATED, FakeHub, hub_environment, run_with_hub
from safetensors.numpy import save_file
from tiny_models import make_model

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.sweeps import downloads as downloads_module
from lmsat_plugin.sweeps.checkpoints import Checkpoint
from lmsat_plugin.sweeps.downloads import Downloads
from lmsat_plugin.sweeps.weights import head_shards, needed_files, read_ahead, weight_files

JUNK = (
    *(
        "optimizer.pt",
        "training_args.bin",
        "flax_model.msgpack",
        "tf_model.h5",
        "consolidated.00.pth",
        "m.gguf",
    ),
    *(
        "consolidated.safetensors",
        "model.fp16.safetensors",
        "README.md",
        "modeling_own.py",
        "pytorch_model.bin",
    ),
    *("onnx/model.onnx", "onnx/config.json", "original/model.safetensors"),
)
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "spiece.model")
SMALL = (
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    *TOKENIZER,
)
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def sizes(*names: str) -> dict[str, int]:
    return dict.fromkeys(names, 1)


def hub_checkpoint(commit: str, revision: str = "main", repository: str = "org/m") -> Checkpoint:
    return Checkpoint(model=repository, pretrained=repository, revision=revision, commit=commit)


# --- which files -----------------------------------------------------------------------------------------------------


def test_needed_files():
    found = needed_files(sizes(*SMALL, *JUNK, "model.safetensors"))
    assert set(found) == {*SMALL, "model.safetensors"}
    found = needed_files(sizes(*SMALL, *JUNK, "model.safetensors"), trust_remote_code=True)
    assert set(found) == {*SMALL, "model.safetensors", "modeling_own.py"}
    index, pickles = "model.safetensors.index.json", "pytorch_model.bin.index.json"
    for names, weights in {
        (index, *SHARDS): {index, *SHARDS},
        (index, *SHARDS, "model.safetensors"): {"model.safetensors"},
        (index, "part1.safetensors", "consolidated.safetensors"): {index, "part1.safetensors"},
        ("pytorch_model.bin",): {"pytorch_model.bin"},
        (pickles, "pytorch_model-00001-of-00001.bin", "training_args.bin"): {
            pickles,
            "pytorch_model-00001-of-00001.bin",
        },
        ("adapter_model.safetensors", "adapter_config.json"): {"adapter_model.safetensors"},
        ("model.fp16.safetensors", "model.gguf", "onnx/model.safetensors"): set(),
    }.items():
        assert set(weight_files(sizes(*names))) == weights


def test_head_shards():
    layers = {f"model.layers.{n}.mlp.output.weight": "layers" for n in range(3)}
    untied = {**layers, "lm_head.weight": "head", "lm_head.bias": "bias", "model.embed_tokens.weight": "in"}
    assert head_shards(untied) == {"head", "bias"}
    assert head_shards({**layers, "model.embed_tokens.weight": "in", "model.norm.weight": "n"}) == {"in"}
    for name in (
        *("embed_out.weight", "output.weight", "transformer.output_layer.weight", "gpt_neox.embed_in.weight"),
        *(
            "wte.weight",
            "transformer.wte.weight",
            "model.decoder.embed_tokens.weight",
            "backbone.embeddings.weight",
        ),
    ):
        assert head_shards({**layers, name: "it"}) == {"it"}, name
    assert head_shards({**layers, "something.weight": "x"}) is None


# --- what identifies weights -----------------------------------------------------------------------------------------


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        f"layers.{n}.weight": generator.normal(size=(n + 1, 300)).astype(np.float32) for n in range(4)
    } | {
        "none": np.zeros((0, 3), np.float32),
        "lm_head.weight": generator.normal(size=(1500, 1000)).astype(np.float32),
    }


def save_shards(folder: Path, *shards: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    weight_map = {}
    for number, shard in enumerate(shards):
        name = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / name)
        weight_map.update(dict.fromkeys(shard, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_the_same_weights_are_the_same(tmp_path, tensors):
    whole = tmp_path / "whole"
    whole.mkdir()
    save_file(tensors, whole / "model.safetensors", metadata={"format": "pt"})
    known = read_ahead(whole)
    assert len(known) == 64
    save_file(tensors, whole / "model.safetensors", metadata={"other": "é"})
    shutil.copy(whole / "model.safetensors", whole / "model-00001-of-00001.safetensors")
    (whole / "tokenizer.json").write_text("{}")
    assert read_ahead(whole) == known
    names = list(tensors)
    halves = [{name: tensors[name] for name in part} for part in (names[3:], names[:3])]
    assert read_ahead(save_shards(tmp_path / "shards", *halves)) == known
    for number, change in enumerate(
        (
            {**tensors, "none": np.zeros((0, 4), np.float32)},
            {**tensors, "layers.0.weight": tensors["layers.0.weight"].view(np.int32)},
            {**tensors, "layers.0.weight": tensors["layers.0.weight"].reshape(300, 1)},
            {**tensors, "lm_head.weight": tensors["lm_head.weight"] + np.eye(1500, 1000, -499, np.float32)},
            {("lm_head" if name == "none" else name): tensor for name, tensor in tensors.items()},
        )
    ):
        save_file(change, (folder := save_shards(tmp_path / str(number), change)) / "model.safetensors")
        assert read_ahead(folder) != known


def test_pickled_weights(tmp_path):
    torch.save({"a": torch.arange(5)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "training_args.bin").write_bytes(b"x")
    known = read_ahead(tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"y")
    assert read_ahead(tmp_path) == known
    data = (tmp_path / "pytorch_model.bin").read_bytes()
    (tmp_path / "pytorch_model.bin").write_bytes(data[:-30])
    with pytest.raises(LmsatError, match=r"pytorch_model.bin is cut short.*download it again"):
        read_ahead(tmp_path)


def test_broken_weights_are_one_sentence(tmp_path, tensors):
    folder = save_shards(tmp_path / "m", tensors)
    [file] = folder.glob("*.safetensors")
    data = file.read_bytes()
    bad_header = (20).to_bytes(8, "little") + b'{"a": {"dtype": 1}} ' + bytes(9)
    for cut in (
        b"",
        data[:7],
        data[:100],
        data[:-1],
        b"<html>" * 50,
        bad_header,
        (2).to_bytes(8, "little") + b"[]",
    ):
        file.write_bytes(cut)
        with pytest.raises(LmsatError, match="is cut short or no file of weights") as error:
            read_ahead(folder)
        assert "\n" not in str(error.value)
    file.unlink()
    with pytest.raises(LmsatError, match=r"lacks model-00001-of-00001.safetensors"):
        read_ahead(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(LmsatError, match="is no index of weights"):
        read_ahead(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(LmsatError, match="has no weights"):
        read_ahead(folder)
    with pytest.raises(LmsatError, match="cannot be read"):
        read_ahead(tmp_path / "nowhere")


# --- what is kept ----------------------------------------------------------------------------------------------------


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


def test_what_a_kill_left_half_deleted_is_removed(tmp_path):
    stray = tmp_path / "org__m" / ".trash-0"
    put(tmp_path, hub_checkpoint("a" * 40)).rename(stray)
    Downloads(tmp_path, 1)
    assert not stray.exists()


def test_a_name_from_outside_stays_inside(tmp_path):
    put(tmp_path, checkpoint := hub_checkpoint("a" * 40))
    odd = hub_checkpoint("../../x", repository="../..")
    downloads = Downloads(tmp_path / "d", 0)
    with pytest.raises(LmsatError):
        downloads.fetch(odd)
    assert downloads._place(odd).resolve().is_relative_to(tmp_path / "d")
    assert downloads._place(checkpoint).parent.name == "org__m"


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    checkpoint = hub_checkpoint("a" * 40, "step5")
    needed = {"config.json": 10, "model.safetensors": 2_000_000_000}
    monkeypatch.setattr(downloads_module.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(downloads_module, "file_sizes", lambda *_: needed)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 2_050_000_000))
    downloads = Downloads(tmp_path, 1)
    assert downloads.size(checkpoint) == 2_000_000_010
    with pytest.raises(
        LmsatError, match=r"org/m at step5 needs 2.10 GB, but .* has 2.05 GB free: free space"
    ):
        downloads.fetch(checkpoint)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 3_000_000_000))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads_module, "snapshot_download", full)
    with pytest.raises(LmsatError, match="no space is left for org/m at step5: free space"):
        downloads.fetch(checkpoint)
    monkeypatch.setattr(downloads_module, "snapshot_download", lambda *_, **__: None)
    with pytest.raises(LmsatError, match=r"config.json did not arrive: check the connection"):
        downloads.fetch(checkpoint)
    assert not (tmp_path / "org__m" / checkpoint.commit / ".complete").exists()


# --- with the fake Hub -----------------------------------------------------------------------------------------------

START = """
import json, sys
from pathlib import Path
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.sweeps.checkpoints import find_checkpoints
from lmsat_plugin.sweeps.selection import select
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
    assert small == needed_files(
        {path.name: path.stat().st_size for path in main.iterdir() if path.is_file()}
    )
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
    assert int(rest[0]) == sum(
        needed_files({p.name: p.stat().st_size for p in hub.branches["org/m"]["main"].iterdir()}).values()
    )
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
    assert (place / ".complete").read_bytes() == b""


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
            (
                "org/m at main: config.json did not arrive: check the connection",
                "org/m at main cannot be had",
            ),
            "org/m at step0 cannot be had from the Hub",
        ),
        strict=True,
    ):
        assert line.startswith(says), line
