"""Identify a checkpoint on disk by the content of its files, recognise it later, and notice when its files change."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.model.checkpoint_files import CONFIG_FILES, TOKENIZER_FILES, WEIGHT_FILES
from lmsat_plugin.sweeps.weights import read_ahead

_SMALL = (*CONFIG_FILES, *TOKENIZER_FILES)
# What else transformers may read.
_OTHERS = ("*.index.json", "adapter_model.bin", "*.py")
# Clocks of file systems tick every few ms: what is written twice within a tick looks the same.
_TICK_NS = 20_000_000

Stamp = dict[str, list[int]]
"""Each file's size in bytes and time of modification in ns."""


@dataclass(frozen=True)
class Fingerprint:
    """The hashes that identify a checkpoint, whatever its name."""

    identity: str
    """Hash of all that makes the model: weights, configuration, tokenizer."""
    weights_sha256: str


class ChangedError(PassingError):
    """A checkpoint's files changed while it was measured: what was measured belongs to no one checkpoint."""

    tries = 4


@dataclass(frozen=True)
class SeenFiles:
    """A checkpoint's files as they were before they were hashed."""

    folder: Path
    files: dict[str, tuple[int, int, int]]
    """Each file's size, and the times of modification and of change in ns: the latter cannot be set at will."""

    @classmethod
    def of(cls, folder: Path) -> SeenFiles:
        """Look at a folder's files without reading them. Raises `PassingError` if the folder is gone."""
        if not folder.is_dir():
            with suppress(OSError):
                if any(folder.parent.iterdir()):
                    raise ChangedError(f"{folder} is gone: put it back, or leave it out", source=str(folder))
            raise PassingError(f"{folder.parent} is empty or gone: mount it again", source=str(folder.parent))
        files = _look(folder)
        newest = max((max(times) for _, *times in files.values()), default=0)
        if 0 <= time.time_ns() - newest < _TICK_NS:
            time.sleep(_TICK_NS / 1e9)
            files = _look(folder)
        return cls(folder, files)

    @property
    def stamp(self) -> Stamp:
        """What results note of the files."""
        return {
            name: list(seen[:2])
            for name, seen in sorted(self.files.items())
            if any(fnmatchcase(name, pattern) for pattern in (*_SMALL, *WEIGHT_FILES))
        }

    def check(self, *, may_grow: bool = False) -> None:
        """Raise `ChangedError` if a file has changed since, is gone, or is new, which ``may_grow`` allows."""
        now = _look(self.folder)
        names = self.files.keys() if may_grow else self.files.keys() | now.keys()
        if changed := sorted(name for name in names if now.get(name) != self.files.get(name)):
            raise ChangedError(
                f"{self.folder / changed[0]} changed while the checkpoint was measured: "
                "start again when nothing writes to it any more",
                source=str(self.folder),
            )


def _look(folder: Path) -> dict[str, tuple[int, int, int]]:
    files = {}
    # A disk that fails tells so when the files are read.
    with suppress(OSError):
        for path in {path for pattern in (*_SMALL, *WEIGHT_FILES, *_OTHERS) for path in folder.glob(pattern)}:
            with suppress(OSError):
                stat = path.stat()
                files[path.name] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return files


def stamp_of(folder: Path) -> Stamp:
    """Return the sizes and times of the files that make the model, as far as they can be read."""
    return SeenFiles(folder, _look(folder)).stamp


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


def known_files(stamp: Stamp, checkpoints: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return what results note of the very same files; None if they note nothing of them."""
    return next((known for known in checkpoints if known.get("files") == stamp), None)


def remembered(stamp: Stamp, checkpoints: Iterable[Mapping[str, Any]]) -> Fingerprint | None:
    """Return the fingerprint that results note of the very same files; None if there is none."""
    known = known_files(stamp, [c for c in checkpoints if c.get("identity") and c.get("weights_sha256")])
    return Fingerprint(known["identity"], known["weights_sha256"]) if known else None
