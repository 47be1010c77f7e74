"""Folders of torch.distributed.checkpoint: the tensors that ``.metadata`` lists, put together from ``*.distcp`` files.

``.metadata`` is a pickle. It is read by an unpickler that imports nothing: each class of
torch.distributed.checkpoint.metadata that a pickle names is replaced by a record without code, and every other name is
refused. So torch's own reader, which unpickles freely, is not used.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import read_file
from lmsat_plugin.lazy import torch

METADATA = ".metadata"
SHARDS = "*.distcp"
_MODULE = "torch.distributed.checkpoint.metadata"
_OLD_MODULE = "torch.distributed._shard.sharded_tensor.metadata"
_RECORDS = {
    *("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "_MEM_FORMAT_ENCODING"),
    *("TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata"),
}


class _Record:
    """What stands for an object in a pickle: its fields, and no code."""

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __getitem__(self, field: str) -> Any:
        return self.state[field]


class _Tensor(_Record):
    """A TensorStorageMetadata."""


class _Index(_Record):
    """A MetadataIndex, which is a key of a dictionary."""

    def __hash__(self) -> int:
        return id(self)


class _UnknownError(Exception):
    """What has no place in a folder of torch.distributed.checkpoint, or cannot be read of one."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class. Raises `_UnknownError` for one that has no place in such a file."""
        if module == _MODULE and name in _RECORDS:
            return {"TensorStorageMetadata": _Tensor, "MetadataIndex": _Index}.get(name, _Record)
        # Of torch before 2.3.
        if module == _OLD_MODULE and name in ("TensorProperties", "MEM_FORMAT_ENCODING"):
            return _Record
        # OLMo-core has a class of its own for the place of a tensor in a file.
        if name == "_StorageInfo" and module.endswith(".checkpoint.filesystem"):
            return _Record
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        if (module, name) in (("torch", "Size"), ("torch.serialization", "_get_layout")):
            return tuple
        if (module, name) in (("collections", "OrderedDict"), ("builtins", "set")):
            return {"OrderedDict": dict, "set": set}[name]
        if module.partition(".")[0] == "pathlib":
            return _Record
        raise _UnknownError(f"it names {module}.{name}")


class _Chunk(NamedTuple):
    """A part of a tensor, and where it lies."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    begin: int
    length: int


class DistributedCheckpoint:
    """The tensors of a folder of torch.distributed.checkpoint, whatever the number of processes that wrote it.

    Raises `LmsatError` for a folder that is incomplete, broken, or that holds more than such a folder does.
    """

    format = "torch.distributed.checkpoint"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._chunks: dict[str, list[_Chunk]] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        """All tensors by name, on the meta device, without data."""
        try:
            data = read_file(folder / METADATA)
        except FileNotFoundError:
            raise LmsatError(
                f"{folder} has no {METADATA}, which torch writes last: its saving was cut off; leave it out"
            ) from None
        try:
            self._read(_Unpickler(io.BytesIO(data)).load())
        except _UnknownError as error:
            raise LmsatError(
                f"{folder / METADATA} holds more than torch.distributed.checkpoint writes ({first_sentence(error)}), "
                "and is not loaded, since a pickle may run any code: give a command with `convert`"
            ) from error
        except Exception as error:
            # A broken pickle raises anything.
            raise LmsatError(
                f"{folder / METADATA} is cut short or broken ({first_sentence(error)}): copy the checkpoint again"
            ) from error

    def _read(self, metadata: Any) -> None:
        places: dict[tuple[str, tuple[int, ...]], Any] = {}
        for index, place in metadata["storage_data"].items():
            places[str(index["fqn"]), tuple(index.state.get("offset") or ())] = place
        for name, entry in metadata["state_dict_metadata"].items():
            if not isinstance(entry, _Tensor):
                continue  # numbers and other objects, pickled
            dtype = entry["properties"].state[0]
            shape = _whole_numbers(entry["size"])
            if not isinstance(dtype, torch.dtype):
                raise ValueError(f"{name} has no type")
            self.tensors[str(name)] = torch.empty(shape, dtype=dtype, device="meta")
            self._chunks[str(name)] = [_chunk(chunk, shape, places, str(name)) for chunk in entry["chunks"]]

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor with its data. Raises `LmsatError` where files are missing, cut, or hold something else."""
        like, chunks = self.tensors[name], self._chunks[name]
        tensor = torch.empty(like.shape, dtype=like.dtype)
        is_there = torch.zeros(like.shape, dtype=torch.bool)
        for chunk in chunks:
            part = self._load(name, chunk)
            if tuple(part.shape) != chunk.sizes or part.dtype != like.dtype:
                raise LmsatError(
                    f"{self.folder / chunk.file} holds another tensor than {name} where {METADATA} says that it is: "
                    "copy the checkpoint again"
                )
            if chunk.sizes == tuple(like.shape):
                return part
            ranges = zip(chunk.offsets, chunk.sizes, strict=True)
            place = tuple(slice(begin, begin + size) for begin, size in ranges)
            tensor[place], is_there[place] = part, True
        if not is_there.all():
            raise LmsatError(f"{self.folder} does not hold all of {name}: copy the checkpoint again")
        return tensor

    def _load(self, name: str, chunk: _Chunk) -> torch.Tensor:
        path = self.folder / chunk.file
        try:
            with path.open("rb") as file:
                file.seek(chunk.begin)
                data = file.read(chunk.length)
        except OSError as error:
            raise LmsatError(f"{path} cannot be read ({error.strerror}): copy the checkpoint again") from error
        try:
            part = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # torch's message recommends to run the code.
            raise LmsatError(
                f"{path} holds something else than the tensor {name}, or is broken, and is not loaded, since it may "
                "run any code: copy the checkpoint again"
            ) from error
        except Exception as error:
            raise LmsatError(f"{path} is cut short or broken ({first_sentence(error)}): copy it again") from error
        if not isinstance(part, torch.Tensor):
            raise LmsatError(f"{path} holds no tensor where {name} should be: copy the checkpoint again")
        return part


def _chunk(chunk: Any, shape: tuple[int, ...], places: Mapping[tuple[str, tuple[int, ...]], Any], name: str) -> _Chunk:
    offsets, sizes = _whole_numbers(chunk["offsets"]), _whole_numbers(chunk["sizes"])
    if not all(begin + size <= whole for begin, size, whole in zip(offsets, sizes, shape, strict=True)):
        raise ValueError(f"a part of {name} is beyond its shape")
    place = places[name, offsets]
    file, begin, length = place["relative_path"], place["offset"], place["length"]
    if Path(file).name != file:
        raise ValueError(f"{name} would lie in {file}, outside of the folder")
    if place.state.get("transform_descriptors"):
        raise _UnknownError(f"{name} is compressed")
    return _Chunk(offsets, sizes, file, *_whole_numbers((begin, length)))


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not all(isinstance(value, int) and value >= 0 for value in values):
        raise ValueError(f"{values} are no sizes")
    return tuple(values)
