"""Folders of checkpoints that processes share: marked while they are in use, and deleted but for the latest few.

Such a folder is ``<folder>/<series>/<checkpoint>``. A mark is a file in it that its process holds a lock on; the marks
of dead processes count for nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from lmsat_plugin.files import PART, check_writable, hold, is_free, remove_strays, write_atomically
from lmsat_plugin.series.checkpoint import Checkpoint

_RELEASED = ".released"
_USED = ".used-"
_TRASH = ".trash-"


class KeptFolders:
    """The folders of checkpoints in a folder, of which only some are kept.

    Args:
        folder: Where they are. What a killed process has left half written or half deleted is removed.
        keep: How many released ones stay; None for all.
    """

    def __init__(self, folder: Path, keep: int | None) -> None:
        self.folder, self._keep = folder, keep
        self._held: dict[Path, int] = {}
        """The marks of this process, each locked until its handle is closed."""
        for stray in folder.glob(f"*/{_TRASH}*"):
            shutil.rmtree(stray, ignore_errors=True)
        remove_strays(folder, f"*/*/.*{PART}")

    def alone(self) -> FileLock:
        """Return the lock under which folders are taken into use and released."""
        check_writable(self.folder)
        return FileLock(self.folder / ".lock")

    def use(self, place: Path, user: str) -> None:
        """Mark a folder as used, so that no other process deletes it. `alone` has to be held."""
        mark = place / f"{_USED}{user}"
        mark.parent.mkdir(parents=True, exist_ok=True)
        if mark not in self._held:
            self._held[mark] = hold(mark)
        (place / _RELEASED).unlink(missing_ok=True)

    def release(self, place: Path, user: str, *, broken: bool = False) -> None:
        """Mark a folder as no longer used, and delete all unused ones but the latest ``keep``; a broken one first."""
        if not place.is_dir():
            return
        with self.alone():
            self._free(place / f"{_USED}{user}")
            self._release_dead()
            if not any(place.glob(f"{_USED}*")):
                numbers = (_read_number(path) for path in self.folder.glob(f"*/*/{_RELEASED}"))
                write_atomically(place / _RELEASED, b"0" if broken else str(max(numbers, default=0) + 1).encode())
            trash = self._take_out_surplus()
        for path in trash:
            shutil.rmtree(path, ignore_errors=True)

    def clean(self) -> None:
        """Release what dead processes had in use, and delete all unused ones but the latest ``keep``."""
        if not self.folder.is_dir():
            return
        with self.alone():
            self._release_dead(unmarked=True)
            trash = self._take_out_surplus()
        for path in trash:
            shutil.rmtree(path, ignore_errors=True)

    def _release_dead(self, *, unmarked: bool = False) -> None:
        """Mark as released what only dead processes used: living ones hold a lock on their marks.

        With ``unmarked`` also what has no mark at all, as where a process was killed between two.
        """
        for place in self.folder.glob("[!.]*/[!.]*"):
            marks = list(place.glob(f"{_USED}*"))
            dead = [mark for mark in marks if mark not in self._held and is_free(mark)]
            for mark in dead:
                mark.unlink(missing_ok=True)
            if dead == marks and (dead or unmarked) and not (place / _RELEASED).exists():
                write_atomically(place / _RELEASED, b"0")

    def _take_out_surplus(self) -> list[Path]:
        """Rename the unused ones but the latest ``keep``: a kill must not leave a folder that looks complete."""
        if self._keep is None:
            return []
        markers = [path for path in self.folder.glob(f"*/*/{_RELEASED}") if path.parent.name[0] != "."]
        trash = []
        for marker in sorted(markers, key=lambda path: -_read_number(path))[self._keep :]:
            with suppress(OSError):
                trash.append(marker.parent.rename(marker.parent.with_name(f"{_TRASH}{uuid.uuid4().hex}")))
        return trash

    def _free(self, mark: Path) -> None:
        mark.unlink(missing_ok=True)
        if (handle := self._held.pop(mark, None)) is not None:
            os.close(handle)


def user_of(checkpoint: Checkpoint) -> str:
    """Return what marks are called by that a checkpoint uses a folder: several may share one."""
    name = f"{checkpoint.model}\0{checkpoint.name}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(name).hexdigest()[:16]


def _read_number(path: Path) -> int:
    with suppress(OSError, ValueError):
        return int(path.read_bytes())
    return 0
