"""Files that are whole or not there, under names that are safe."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from lmsat_plugin.errors import LmsatError

PART = ".part"
"""How a file ends that is being written; one that is left was cut off by a kill."""


def safe_name(name: str) -> str:
    """Return a name for a file from a name from outside: no separators, no ``..``, nothing a shell reads."""
    return re.sub(r"[^A-Za-z0-9._-]+", "__", name).strip(".") or "_"


def check_writable(folder: Path) -> None:
    """Make a folder if need be. Raises `LmsatError` if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise LmsatError(f"cannot write to {folder} ({error.strerror}): choose another folder") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises `LmsatError` where the folder cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise LmsatError(
            f"cannot write {path} ({error.strerror}): free space or choose another folder"
        ) from error
