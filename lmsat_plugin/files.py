"""Files that are whole or absent, and safe names for files and folders."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from lmsat_plugin.errors import LmsatError

PART = ".part"
"""The ending of a file that is being written; one that is left was cut off by a kill."""
_LONGEST_NAME = 100


def safe_name(name: str) -> str:
    """Return a name for a file from a name from outside: no separators, no ``..``, nothing a shell reads."""
    return re.sub(r"[^A-Za-z0-9._-]+", "__", name).strip(".") or "_"


def folder_name(name: str) -> str:
    """Return the name of a folder for a model or a revision: readable, safe, and different for each name."""
    safe = safe_name(name)
    # The name can be read back from its folder's, so that no other name has this folder.
    if safe.replace("__", "/") == name and len(safe) <= _LONGEST_NAME:
        return safe
    return f"{safe[:_LONGEST_NAME]}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def user_path(name: str | Path) -> Path:
    """Return the path that a user has named, with ``~`` replaced. Raises `LmsatError` for the home of nobody."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise LmsatError(f"{name} is in the home folder of nobody here ({error}): correct the path") from error


def kind_of(path: Path) -> Literal["file", "folder", "device"] | None:
    """Return what is at a path; None for nothing, as where the name is too long or holds a zero character.

    A FIFO, a socket and a device are all called a device: they may keep a reader waiting for ever.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "device"


def check_file(path: Path) -> None:
    """Raise OSError for a folder and for a device, before something opens it and waits for ever."""
    kind = kind_of(path)
    if kind in ("folder", "device"):
        raise OSError(errno.EINVAL, f"it is a {kind}, not a file", str(path))


def read_file(path: Path) -> bytes:
    """Return the content of a file. Raises OSError for anything else, see `check_file`."""
    check_file(path)
    try:
        return path.read_bytes()
    except ValueError as error:
        raise OSError(errno.EINVAL, f"no file can have this name: {error}", str(path)) from error


def check_writable(folder: Path) -> None:
    """Make a folder if need be. Raises `LmsatError` if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LmsatError(f"cannot write to {folder} ({reason}): choose another folder") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file to write, which takes the place of ``path`` once it is whole and on disk.

    Raises `LmsatError` where the folder cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise LmsatError(
            f"cannot write {path} ({error.strerror or error}): free space or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all. Raises as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
