"""Identify a checkpoint on disk by the content of its files, recognise it later, and notice when its files change."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.files import FileStamp, read_file, stamp_file
from lmsat_plugin.model.checkpoint_files import CONFIG_FILES, TOKENIZER_FILES, WEIGHT_FILES
from lmsat_plugin.sweeps.weights import read_ahead

_SMALL = (*CONFIG_FILES, *TOKENIZER_FILES)
# What else transformers may read.
_OTHERS = ("*.index.json", "adapter_model.bin", "*.py")
# Clocks of file systems tick every few ms, some only every two seconds: what is written twice within a tick looks the
# same.
_TICK_NS, _LONG_TICK_NS = 20_000_000, 2_000_000_000

Stamp = dict[str, list[int]]
"""Each file's size in bytes, and its times of modification and of change in ns. Older results lack the last."""
RECIPE = "converted by "
"""How the entry of a stamp begins that says how the files are converted; it ends with the recipe's digest."""


@dataclass(frozen=True)
class Fingerprint:
    """The hashes that identify a checkpoint, whatever its name."""

    identity: str
    """Hash of all that makes the model: weights, configuration, tokenizer, code of its own."""
    weights_sha256: str


class ChangedError(PassingError):
    """A checkpoint's files changed while it was measured: what was measured belongs to no one checkpoint."""

    tries = 4


@dataclass(frozen=True)
class SeenFiles:
    """A checkpoint's files as they were before they were hashed."""

    folder: Path
    """Or the checkpoint's one file."""
    files: dict[str, FileStamp]
    whole: bool = False
    """Whether all files count, those in its folders too, and not those alone that transformers reads."""

    @classmethod
    def of(cls, folder: Path, *, whole: bool = False) -> SeenFiles:
        """Look at a folder's files without reading them. Raises `PassingError` if the folder is gone."""
        if not folder.exists():
            with suppress(OSError):
                if any(folder.parent.iterdir()):
                    raise ChangedError(f"{folder} is gone: put it back, or leave it out", source=str(folder))
            raise PassingError(f"{folder.parent} is empty or gone: mount it again", source=str(folder.parent))
        files = _look(folder, whole)
        newest = max((max(times) for _, *times in files.values()), default=0)
        tick = _TICK_NS if newest % 1_000_000_000 else _LONG_TICK_NS
        # The clock of another machine may be ahead.
        if time.time_ns() - newest < tick:
            time.sleep(tick / 1e9)
            files = _look(folder, whole)
        return cls(folder, files, whole)

    @property
    def stamp(self) -> Stamp:
        """What results note of the files."""
        return {name: list(seen) for name, seen in sorted(self.files.items())}

    def check(self, *, may_grow: bool = False) -> None:
        """Raise `ChangedError` if a file has changed since, is gone, or is new, which ``may_grow`` allows."""
        now = _look(self.folder, self.whole)
        names = self.files.keys() if may_grow else self.files.keys() | now.keys()
        if changed := sorted(name for name in names if now.get(name) != self.files.get(name)):
            raise ChangedError(
                f"{self.folder / changed[0]} changed while the checkpoint was measured: "
                "start again when nothing writes to it any more",
                source=str(self.folder),
            )


def _look(folder: Path, whole: bool) -> dict[str, FileStamp]:
    files = {}
    # A disk that fails tells so when the files are read.
    with suppress(OSError):
        if folder.is_file():
            return {folder.name: stamp_file(folder)}
        found = {path for pattern in (*_SMALL, *WEIGHT_FILES, *_OTHERS) for path in folder.glob(pattern)}
        for path in (path for path in folder.rglob("*") if path.is_file()) if whole else found:
            with suppress(OSError):
                files[path.relative_to(folder).as_posix()] = stamp_file(path)
    return files


def stamp_of(folder: Path, *, whole: bool = False) -> Stamp:
    """Return the sizes and times of the files that make the model, or of all, as far as they can be read."""
    return SeenFiles(folder, _look(folder, whole)).stamp


def fingerprint(folder: Path) -> Fingerprint:
    """Read a checkpoint's files. Raises `LmsatError` for one whose weights are cut or missing."""
    weights = read_ahead(folder)
    digest = hashlib.sha256(weights.encode())
    hashed = _content(digest, {path for pattern in _SMALL for path in folder.glob(pattern) if path.is_file()})
    # transformers runs no other code than that which the configuration names.
    if any(path.name == "config.json" and b'"auto_map"' in content for path, content in hashed.items()):
        _content(digest, folder.glob("*.py"))
    return Fingerprint(digest.hexdigest(), weights)


def _content(digest: Any, paths: Iterable[Path]) -> dict[Path, bytes]:
    """Add names and content of files to a digest. Return the content."""
    contents = {}
    for path in sorted(paths):
        try:
            contents[path] = read_file(path)
        except OSError as error:
            raise LmsatError(f"{path} cannot be read ({error.strerror}): correct its rights") from error
        digest.update(path.name.encode("utf-8", "surrogatepass") + b"\0" + contents[path])
    return contents


def known_files(stamp: Stamp, checkpoints: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return what results note of the very same files; None if they note nothing of them."""
    return next((known for known in checkpoints if known.get("files") == stamp), None)


def remembered(stamp: Stamp, checkpoints: Iterable[Mapping[str, Any]]) -> Fingerprint | None:
    """Return the fingerprint that results note of the very same files; None if there is none."""
    known = known_files(stamp, [c for c in checkpoints if c.get("identity") and c.get("weights_sha256")])
    return Fingerprint(known["identity"], known["weights_sha256"]) if known else None
