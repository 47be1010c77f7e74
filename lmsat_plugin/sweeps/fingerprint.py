"""Identify a checkpoint on disk by the content of its files, and recognise it later without reading them again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.checkpoint_files import CONFIG_FILES, TOKENIZER_FILES, WEIGHT_FILES
from lmsat_plugin.sweeps.weights import read_ahead

_SMALL = (*CONFIG_FILES, *TOKENIZER_FILES)

Stamp = dict[str, list[int]]
"""Each file's size in bytes and time of modification in ns."""


@dataclass(frozen=True)
class Fingerprint:
    """The hashes that identify a checkpoint, whatever its name."""

    identity: str
    """Hash of all that makes the model: weights, configuration, tokenizer."""
    weights_sha256: str


def stamp_of(folder: Path) -> Stamp:
    """Return the sizes and times of the files that make the model, as far as they can be read."""
    stamp = {}
    for path in sorted({path for pattern in (*_SMALL, *WEIGHT_FILES) for path in folder.glob(pattern)}):
        with suppress(OSError):
            stat = path.stat()
            stamp[path.name] = [stat.st_size, stat.st_mtime_ns]
    return stamp


def fingerprint(folder: Path) -> Fingerprint:
    """Read a checkpoint's files. Raises `LmsatError` for one whose weights are cut or missing."""
    weights = read_ahead(folder)
    digest = hashlib.sha256(weights.encode())
    for path in sorted({path for pattern in _SMALL for path in folder.glob(pattern) if path.is_file()}):
        try:
            digest.update(path.name.encode("utf-8", "surrogatepass") + b"\0" + path.read_bytes())
        except OSError as error:
            raise LmsatError(f"{path} cannot be read ({error.strerror}): correct its rights") from error
    return Fingerprint(digest.hexdigest(), weights)


def known_files(folder: Path, checkpoints: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return what results note of the very same files; None if they note nothing of them."""
    stamp = stamp_of(folder)
    return next((known for known in checkpoints if known.get("files") == stamp), None)


def remembered(folder: Path, checkpoints: Iterable[Mapping[str, Any]]) -> Fingerprint | None:
    """Return the fingerprint that results note of the very same files; None if there is none."""
    known = known_files(folder, [c for c in checkpoints if c.get("identity") and c.get("weights_sha256")])
    return Fingerprint(known["identity"], known["weights_sha256"]) if known else None
