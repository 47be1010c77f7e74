"""The files of a checkpoint's weights: where the LM head is, and a hash that identifies them."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.model.checkpoint_files import weight_paths

_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output|output_layer|head|decoder|unembed)\.(weight|bias)$")
_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|embed_in|wte|word_embeddings|tok_embeddings|embeddings|embedding)\.weight$"
)
_BLOCK = 4 << 20
_LONGEST_HEADER = 100_000_000  # by the format


def head_shards(weight_map: Mapping[str, str]) -> set[str] | None:
    """Return the shards that hold the LM head, or the embedding it is tied to; None if neither is known."""
    outside = [name for name in weight_map if not re.search(r"(^|\.)\d+\.", name)]
    for pattern in (_HEAD, _EMBEDDING):
        if found := {weight_map[name] for name in outside if pattern.search(name)}:
            return found
    return None


def read_ahead(folder: Path) -> str:
    """Read all weights of a folder, and so into the system's cache; return a hash that identifies them.

    They are those that transformers loads. Raises `LmsatError` if there are no weights, or as `hash_weights`.
    """
    return hash_weights(weight_paths(folder))


def hash_weights(paths: Iterable[Path]) -> str:
    """Return a hash that identifies the weights in files.

    It is the SHA-256 over the tensors' names, types, shapes and bytes, whatever the shards and the metadata of
    the safetensors files; for pickled weights, the SHA-256 over the files.

    Raises `LmsatError` if a file is missing, cut or no safetensors file.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_BLOCK))
    tensors: list[tuple[str, str, list[int], str]] = []
    for path in paths:
        try:
            size = path.stat().st_size
            with path.open("rb", buffering=0) as file:
                if path.suffix == ".safetensors":
                    tensors += _tensors(file, size, buffer)
                else:
                    _check_archive(path)
                    digest.update(f"{path.name}\0{size}\0".encode("utf-8", "surrogatepass"))
                    for block in _blocks(file, size, buffer):
                        digest.update(block)
        except OSError as error:
            what = error.strerror or first_sentence(error)
            raise LmsatError(f"{path} cannot be read ({what}): check the disk and the file's rights") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LmsatError(
                f"{path} is cut short or no file of weights ({first_sentence(error)}): copy or download it again"
            ) from error
    if tensors:
        digest.update(json.dumps(sorted(tensors)).encode())
    return digest.hexdigest()


def _tensors(file: FileIO, size: int, buffer: memoryview) -> Iterator[tuple[str, str, list[int], str]]:
    """Yield each tensor's name, type, shape and the SHA-256 of its bytes. Raises ValueError if the file is cut."""
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, _LONGEST_HEADER):
        raise ValueError(f"its header would have {length} bytes")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        if not 0 <= start <= end <= size - 8 - length:
            raise ValueError(f"it ends before {name}")
        file.seek(8 + length + start)
        digest = hashlib.sha256()
        for block in _blocks(file, end - start, buffer):
            digest.update(block)
        yield name, entry["dtype"], entry["shape"], digest.hexdigest()


def _blocks(file: FileIO, size: int, buffer: memoryview) -> Iterator[memoryview]:
    """Yield the next ``size`` bytes in blocks that are overwritten by the next. Raises ValueError at an early end."""
    while size:
        count = file.readinto(buffer[: min(size, len(buffer))])
        if not count:
            raise ValueError("it ends early")
        size -= count
        yield buffer[:count]


def _check_archive(path: Path) -> None:
    """Raise ValueError for a zip archive, which torch writes, without its end."""
    with path.open("rb") as file:
        if file.read(4) == b"PK\3\4" and not zipfile.is_zipfile(path):
            raise ValueError("its end is missing")
