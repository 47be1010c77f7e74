"""Averages of weights against NumPy in float64, whatever the types and the shards of the files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import make_model

from lmsat_plugin.conversion.averages import average_checkpoints, move_average
from lmsat_plugin.errors import LmsatError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer):
    """Return three checkpoints: of several types, in shards, and one of torch.save."""
    folders = []
    for seed, dtype in enumerate(DTYPES):
        folder = tmp_path_factory.mktemp("checkpoint")
        make_model("llama", seed).to(dtype).save_pretrained(folder, max_shard_size="20KB" if seed == 1 else "1GB")
        tokenizer.save_pretrained(folder)
        folders.append(folder)
    weights = load_file(folders[2] / "model.safetensors")
    torch.save(weights, folders[2] / "pytorch_model.bin")
    (folders[2] / "model.safetensors").unlink()
    return folders


def weights_of(folder) -> dict[str, np.ndarray]:
    tensors: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    if not tensors:
        tensors = torch.load(folder / "pytorch_model.bin")
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}


def test_mean(folders, tmp_path):
    average_checkpoints(folders, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    parts = [weights_of(folder) for folder in folders]
    assert found.keys() == parts[0].keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        mean = np.mean([part[name] for part in parts], axis=0)
        np.testing.assert_array_equal(tensor.numpy(), mean.astype(np.float32))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


def test_large_tensors_are_averaged_whole(tmp_path):
    """More numbers than one block has, and their number no multiple of it."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(301, 977, generator=generator) for _ in range(2)]
    for number, tensor in enumerate(tensors):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file({"weight": tensor, "steps": torch.tensor([number])}, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
    average_checkpoints([tmp_path / "0", tmp_path / "1"], tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    mean = (tensors[0].double() + tensors[1].double()) / 2
    assert torch.equal(found["weight"], mean.float())
    assert found["steps"].tolist() == [1]


def test_moving_average(folders, tmp_path):
    """In one go and one checkpoint after another: the same bits."""
    decay = 0.9
    expected = weights_of(folders[0])
    for folder in folders[1:]:
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in weights_of(folder).items()}
    move_average(None, folders, decay=decay, out=tmp_path / "at once", new_state=tmp_path / "state.safetensors")
    state = None
    for number, folder in enumerate(folders):
        new = tmp_path / f"{number}.safetensors"
        move_average(state, [folder], decay=decay, out=tmp_path / f"out{number}", new_state=new)
        state = new
    at_once, stepwise = (
        load_file(tmp_path / name / "model.safetensors") for name in ("at once", f"out{len(folders) - 1}")
    )
    for name, value in expected.items():
        np.testing.assert_allclose(at_once[name].double(), value, rtol=1e-7)
        assert torch.equal(at_once[name], stepwise[name])


def broken(folder, kind: str):
    config = json.loads((folder / "config.json").read_text())
    if kind == "quantised":
        (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"bits": 4}}))
    elif kind == "adapter":
        (folder / "adapter_config.json").write_text("{}")
    elif kind == "config":
        (folder / "config.json").write_text("{")
    else:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
    return folder


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("quantised", "is quantised: average the weights"),
        ("adapter", "is an adapter: average whole models"),
        ("config", "cannot be read"),
        ("cut", "is cut short or broken"),
    ],
)
def test_one_sentence_for_what_cannot_be_averaged(folders, tmp_path, kind, sentence):
    other = tmp_path / "other"
    make_model("llama", 5).save_pretrained(other)
    with pytest.raises(LmsatError, match=sentence):
        average_checkpoints([folders[0], broken(other, kind)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_architecture(folders, tmp_path):
    make_model("gpt_neox", 0).save_pretrained(tmp_path / "other")
    with pytest.raises(LmsatError, match="average checkpoints of one architecture"):
        average_checkpoints([folders[0], tmp_path / "other"], tmp_path / "out")


def test_a_moving_average_goes_on_with_one_architecture(folders, tmp_path):
    state, options = tmp_path / "state.safetensors", {"decay": 0.9, "out": tmp_path / "out"}
    move_average(None, folders[:1], **{**options, "out": tmp_path / "first"}, new_state=state)
    make_model("gpt_neox", 0).save_pretrained(tmp_path / "other")
    with pytest.raises(LmsatError, match=r"is only .*: average checkpoints of one architecture"):
        move_average(state, [tmp_path / "other"], **options, new_state=tmp_path / "new")
    # A single number would be spread over all of a tensor.
    tensors = load_file(shutil.copytree(folders[0], tmp_path / "single") / "model.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.dim() == 1)
    save_file({**tensors, name: tensors[name][:1].clone()}, tmp_path / "single" / "model.safetensors")
    with pytest.raises(LmsatError, match=r"\[1\] in .*single: average checkpoints of one architecture"):
        move_average(state, [tmp_path / "single"], **options, new_state=tmp_path / "new")
    assert not (tmp_path / "out").exists()
    wide = load_file(folders[0] / "model.safetensors")
    name = sorted(wide)[0]
    (tmp_path / "wide").mkdir()
    (tmp_path / "wide" / "config.json").write_text((folders[0] / "config.json").read_text())
    save_file({**wide, name: torch.zeros(3, 3)}, tmp_path / "wide" / "model.safetensors")
    with pytest.raises(LmsatError, match=rf"{name} is .* and \[3, 3\]"):
        average_checkpoints([folders[0], tmp_path / "wide"], tmp_path / "out")
