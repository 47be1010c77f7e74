"""Claims: which process is at work on which checkpoint, by a lock that the system frees if the process dies."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lmsat_plugin.errors import LmsatError


class Claim:
    """A checkpoint that this process alone works on."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock
        # A file of its own: filelock below 4.0 empties a lock file when another process asks for the lock.
        self._note = Path(lock.lock_file).with_suffix(".json")

    def note(self, label: str) -> None:
        """Note what this process measures, for whoever finds the claim after its death."""
        with suppress(OSError):
            self._note.write_text(json.dumps({"pid": os.getpid(), "at": label}), "utf-8")

    def release(self) -> None:
        """Let others have it."""
        with suppress(OSError):
            self._note.unlink()
        # Removed while it is held: whoever waits for the file that is gone opens a new one.
        with suppress(OSError):
            Path(self._lock.lock_file).unlink()
        self._lock.release()


class Claims:
    """The claims in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def claim(self, name: str) -> Claim | None:
        """Claim something; None if another process has it. Raises `LmsatError` if the folder cannot be written."""
        path = self._folder / f"{name}.lock"
        lock = FileLock(path, timeout=0, thread_local=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            return None
        except OSError as error:
            raise LmsatError(
                f"cannot write {path} ({error.strerror}): free space or choose another output folder"
            ) from error
        return Claim(lock)

    def died_at(self, pid: int) -> str | None:
        """Return what a process was measuring when it died."""
        for path in self._folder.glob("*.json"):
            with suppress(OSError, ValueError, KeyError):
                noted = json.loads(path.read_text("utf-8"))
                if noted["pid"] == pid:
                    return noted["at"]
        return None

    def clean(self) -> None:
        """Remove the claims that dead processes have left."""
        for path in self._folder.glob("*.lock"):
            with suppress(LmsatError):
                if (left := self.claim(path.stem)) is not None:
                    left.release()
