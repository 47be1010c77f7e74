"""Folders that torch.distributed.checkpoint wrote hold what was saved, and nothing in them is run."""

from __future__ import annotations

import io
import pickle
import shutil

import pytest
import torch
from places import HELPERS
from torchrun import launch
from training_formats import MakesAFile, pickled, save_distributed, training_state

from lmsat_plugin.conversion.distributed import DistributedCheckpoint
from lmsat_plugin.errors import LmsatError


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return save_distributed(tmp_path_factory.mktemp("alone") / "step-1")


@pytest.fixture
def copy(alone, tmp_path):
    """Return a copy of a whole folder, which a test may break."""
    return shutil.copytree(alone, tmp_path / "step-1")


def check(checkpoint: DistributedCheckpoint, saved: dict) -> None:
    assert len(saved) == 30
    for name, tensor in saved.items():
        assert torch.equal(checkpoint.read(f"model.{name}"), tensor), name


def test_one_process(alone):
    checkpoint = DistributedCheckpoint(alone)
    check(checkpoint, training_state(0)["model"])
    assert {tensor.device.type for tensor in checkpoint.tensors.values()} == {"meta"}
    # The moments are listed, and the numbers are no tensors.
    assert "optimizer.state.lm_head.weight.exp_avg" in checkpoint.tensors
    assert not [name for name in checkpoint.tensors if "param_groups" in name or name == "step"]


def test_two_processes(tmp_path):
    launch(2, str(HELPERS / "training_formats.py"), str(tmp_path / "step-1"))
    assert len(list((tmp_path / "step-1").glob("*.distcp"))) == 2
    checkpoint = DistributedCheckpoint(tmp_path / "step-1")
    # Sharded along each dimension, and replicated.
    assert {len(checkpoint._chunks[f"model.{name}"]) for name in training_state(0)["model"]} == {1, 2}
    check(checkpoint, training_state(0)["model"])


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int32, torch.bool])
def test_types_are_kept(dtype, tmp_path):
    tensor = (torch.randn(3, 5) * 10).to(dtype)
    torch.distributed.checkpoint.save(
        {"a": tensor, "scalar": tensor[0, 0].clone()}, checkpoint_id=tmp_path, no_dist=True
    )
    checkpoint = DistributedCheckpoint(tmp_path)
    assert torch.equal(checkpoint.read("a"), tensor)
    assert checkpoint.read("scalar").shape == ()
    assert checkpoint.tensors["a"].dtype == dtype


def test_a_pickle_with_code_is_not_run(copy, tmp_path):
    """Neither in the place of all, nor of a part."""
    marker = tmp_path / "made"
    metadata = pickle.loads((copy / ".metadata").read_bytes())
    metadata.planner_data = [MakesAFile(marker)]
    for data in (pickled(marker), pickle.dumps(metadata), pickle.dumps(metadata, protocol=0)):
        (copy / ".metadata").write_bytes(data)
        with pytest.raises(
            LmsatError, match=r"holds more than .* names (posix.mkdir|copy_?reg).* not loaded.*`convert`"
        ):
            DistributedCheckpoint(copy)
        assert not marker.exists()
    pickle.loads(pickled(marker))
    assert marker.exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "os.system", "torch.load", "torch.hub.load", "torch.Tensor", "copyreg._reconstructor"]
)
def test_other_names_are_refused(name, copy):
    module, _, attribute = name.rpartition(".")
    (copy / ".metadata").write_bytes(f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(LmsatError, match=f"names {name}"):
        DistributedCheckpoint(copy)


def test_a_tensor_with_code_is_not_run(copy, tmp_path):
    """In the place of a tensor's bytes is a pickle, in torch's own format, that would make a file."""
    marker = tmp_path / "made"
    place = DistributedCheckpoint(copy)._chunks["model.lm_head.weight"][0]
    buffer = io.BytesIO()
    torch.save(MakesAFile(marker), buffer)
    data = bytearray((copy / place.file).read_bytes())
    assert buffer.tell() < place.length
    data[place.begin : place.begin + buffer.tell()] = buffer.getvalue()
    # What comes after it is cut off, so that it is a whole file for torch.
    metadata = pickle.loads((copy / ".metadata").read_bytes())
    for index, entry in metadata.storage_data.items():
        if index.fqn == "model.lm_head.weight":
            entry.length = buffer.tell()
    (copy / ".metadata").write_bytes(pickle.dumps(metadata))
    (copy / place.file).write_bytes(data)
    with pytest.raises(LmsatError, match=r"__0_0.distcp holds something else than the tensor model.lm_head.weight"):
        DistributedCheckpoint(copy).read("model.lm_head.weight")
    assert not marker.exists()
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert marker.exists()


def test_a_file_outside_of_the_folder_is_not_read(copy):
    metadata = pickle.loads((copy / ".metadata").read_bytes())
    for entry in metadata.storage_data.values():
        entry.relative_path = "../step-1/__0_0.distcp"
    (copy / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(LmsatError, match="outside of the folder"):
        DistributedCheckpoint(copy)


def test_broken_folders(copy):
    (copy / "__0_0.distcp").write_bytes((copy / "__0_0.distcp").read_bytes()[:-200_000])
    checkpoint = DistributedCheckpoint(copy)
    with pytest.raises(LmsatError, match=r"__0_0.distcp is cut short or broken"):
        [checkpoint.read(name) for name in checkpoint.tensors]
    (copy / "__0_0.distcp").unlink()
    with pytest.raises(LmsatError, match=r"cannot be read .*copy the checkpoint again"):
        checkpoint.read("model.lm_head.weight")
    data = (copy / ".metadata").read_bytes()
    for cut in (0, 5, 1000, len(data) - 1):
        (copy / ".metadata").write_bytes(data[:cut])
        with pytest.raises(LmsatError, match="is cut short or broken"):
            DistributedCheckpoint(copy)
    (copy / ".metadata").unlink()
    with pytest.raises(LmsatError, match=r"has no .metadata, which torch writes last: its saving was cut off"):
        DistributedCheckpoint(copy)


def test_a_part_that_is_missing_is_an_error(copy):
    """Also where another part is there twice, so that as many numbers are there as are to be."""
    metadata = pickle.loads((copy / ".metadata").read_bytes())
    entry = metadata.state_dict_metadata["model.lm_head.weight"]
    for rows, times in ((600, 1), (2 * 576, 2)):
        entry.size, entry.chunks = torch.Size([rows, 48]), entry.chunks[:1] * times
        (copy / ".metadata").write_bytes(pickle.dumps(metadata))
        with pytest.raises(LmsatError, match=r"does not hold all of model.lm_head.weight"):
            DistributedCheckpoint(copy).read("model.lm_head.weight")


def test_metadata_of_torch_before_2_3(copy):
    """Its properties are of another class."""
    data = (copy / ".metadata").read_bytes()
    module, name = b"torch.distributed.checkpoint.metadata", b"TensorProperties"
    old = b"torch.distributed._shard.sharded_tensor.metadata"

    class Old(pickle._Pickler):
        def save_global(self, value, name=None):
            if getattr(value, "__name__", "") == "TensorProperties":
                self.write(b"c" + old + b"\nTensorProperties\n")
                self.memoize(value)
            else:
                super().save_global(value, name)

        dispatch = {**pickle._Pickler.dispatch, type: save_global}

    buffer = io.BytesIO()
    Old(buffer).dump(pickle.loads(data))
    assert module in data
    assert name in buffer.getvalue()
    assert old in buffer.getvalue()
    (copy / ".metadata").write_bytes(buffer.getvalue())
    check(DistributedCheckpoint(copy), training_state(0)["model"])
