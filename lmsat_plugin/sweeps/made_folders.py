"""Folders of checkpoints that a sweep converts or averages: each made once, kept as downloads are, none half-made.

They are ``<folder>/<model>/<key>/model``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from lmsat_plugin.files import safe_name, stamp_file, write_atomically
from lmsat_plugin.series.checkpoint import Checkpoint
from lmsat_plugin.sweeps.fingerprint import Stamp, stamp_of
from lmsat_plugin.sweeps.kept_folders import KeptFolders, user_of
from lmsat_plugin.sweeps.stored import canonical

_MODEL = "model"
_WHOLE = ".converted"
"""The file that says what was made, written last."""


class MadeFolders:
    """The folders that were made of other files, in a folder that processes share.

    Args:
        folder: Where to put them.
        keep: How many released ones stay; None for all.
    """

    def __init__(self, folder: Path, keep: int | None) -> None:
        self._kept = KeptFolders(folder, keep)
        self._places: dict[Checkpoint, Path] = {}
        """Those that are in use here."""

    def place(self, checkpoint: Checkpoint, source: str, stamp: Stamp) -> Path:
        """Return where a checkpoint's folder is or will be. ``source`` and its stamp are what it is made of."""
        key = hashlib.sha256(f"{source}\0{canonical(stamp)}".encode("utf-8", "surrogatepass"))
        return self._kept.folder / safe_name(checkpoint.model) / key.hexdigest()[:32]

    def fetch(
        self, checkpoint: Checkpoint, place: Path, make: Callable[[Path], dict[str, Any]]
    ) -> tuple[Path, dict[str, Any]]:
        """Return a checkpoint's folder, and what to note of it, made unless it was before.

        ``make`` writes a folder that is there whole or not at all, and returns the notes. What else it writes beside
        the folder is kept with it.
        """
        self._places[checkpoint] = place
        with self._kept.alone():
            self._kept.use(place, user_of(checkpoint))
        with FileLock(place.with_name(f".{place.name}.lock")):
            if (notes := notes_of(place)) is None:
                shutil.rmtree(place / _MODEL, ignore_errors=True)
                notes = make(place / _MODEL)
                beside = {path.name: stamp_file(path) for path in place.glob("*.safetensors")}
                whole = {"notes": notes, "files": stamp_of(place / _MODEL, whole=True), "beside": beside}
                write_atomically(place / _WHOLE, json.dumps(whole).encode())
        return place / _MODEL, notes

    @contextmanager
    def kept(self, place: Path, user: Checkpoint) -> Iterator[dict[str, Any] | None]:
        """Keep a folder that was made before from being deleted; give its notes, or None where it is not there."""
        with self._kept.alone():
            if (notes := notes_of(place)) is not None:
                self._kept.use(place, user_of(user))
        try:
            yield notes
        finally:
            if notes is not None:
                self._kept.release(place, user_of(user))

    def release(self, checkpoint: Checkpoint) -> None:
        """Mark a folder as no longer used, and delete all unused ones but the latest ``keep``."""
        if (place := self._places.pop(checkpoint, None)) is not None:
            self._kept.release(place, user_of(checkpoint), broken=not (place / _WHOLE).exists())

    def clean(self) -> None:
        """Release what dead processes had in use, and delete all unused ones but the latest ``keep``."""
        self._kept.clean()


def notes_of(place: Path) -> dict[str, Any] | None:
    """Return what was noted of a folder all of whose files are as they were written; None if there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        whole = json.loads((place / _WHOLE).read_bytes())
        beside = {name: list(stamp_file(place / name)) for name in whole.get("beside", ())}
        if whole["files"] and whole["files"] == stamp_of(place / _MODEL, whole=True):
            return dict(whole["notes"]) if beside == whole.get("beside", {}) else None
    return None
