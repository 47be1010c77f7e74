"""The files of a checkpoint: which are needed, where its head is, and what identifies its weights."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from fake_hub import JUNK
from safetensors.numpy import save_file

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.checkpoint_files import needed_files, weight_files
from lmsat_plugin.sweeps.weights import head_shards, read_ahead

if TYPE_CHECKING:
    from pathlib import Path

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "spiece.model")
SMALL = ("config.json", "generation_config.json", "chat_template.jinja", "special_tokens_map.json", *TOKENIZER)
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def sizes(*names: str) -> dict[str, int]:
    return dict.fromkeys(names, 1)


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
        *("wte.weight", "transformer.wte.weight", "model.decoder.embed_tokens.weight", "backbone.embeddings.weight"),
    ):
        assert head_shards({**layers, name: "it"}) == {"it"}, name
    assert head_shards({**layers, "something.weight": "x"}) is None


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {f"layers.{n}.weight": generator.normal(size=(n + 1, 300)).astype(np.float32) for n in range(4)} | {
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
    for cut in (b"", data[:7], data[:100], data[:-1], b"<html>" * 50, bad_header, (2).to_bytes(8, "little") + b"[]"):
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
