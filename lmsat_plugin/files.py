"""Files that are whole or absent, and safe names for files and folders."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from lmsat_plugin.errors import LmsatError, UnwritableError

PART = ".lmsat.part"
"""The ending of a file that is being written; one that is left was cut off by a kill."""
FileStamp = tuple[int, int, int]
"""A file's size, and its times of modification and of change in ns. Nobody can set the last one."""
_tidied: set[Path] = set()
"""The folders from which this process has removed what others have left."""
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


def cache_folder() -> Path:
    """Return the folder of files that outlive a run: ``LMSAT_CACHE``, or ``lmsat`` in the user's cache."""
    given = os.environ.get("LMSAT_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmsat"


def kind_of(path: Path) -> Literal["file", "folder", "device"] | None:
    """Return what is at a path; None for nothing, as where the name is too long or holds a zero character.

    A FIFO, a socket and a device are all called a device: they may keep a reader waiting for ever.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "device"


def similar_path(path: Path, folder: Path | None = None, *, kind: Literal["file", "folder"] = "folder") -> Path | None:
    """Return what is in the folder of a path, or in another, under the most similar name; None without one."""
    from lmsat_plugin.settings import closest

    with suppress(OSError, ValueError):
        beside = [each for each in (folder or path.parent).iterdir() if kind_of(each) == kind]
        if (meant := closest(path.name, [each.name for each in beside])) is not None:
            return path.with_name(meant)
    return None


def stamp_file(path: Path) -> FileStamp:
    """Look at a file without reading it. Raises OSError for one that is not there."""
    return stamp_of_status(path.stat())


def stamp_of_status(status: os.stat_result) -> FileStamp:
    """Return the stamp of a file that was looked at."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


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


def paths_in(folder: Path, pattern: str) -> list[Path]:
    """Return the paths in a folder whose names match a pattern, sorted; none where there is no folder.

    Raises OSError for a folder that cannot be read, which `Path.glob` takes for an empty one.
    """
    try:
        return sorted(path for path in folder.iterdir() if fnmatchcase(path.name, pattern))
    except (FileNotFoundError, NotADirectoryError):
        return []


def check_writable(folder: Path) -> None:
    """Make a folder if need be, and remove what a dead process has left half-written in it.

    Raises `LmsatError` if nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _unwritable(f"cannot write to {folder} ({reason}): choose another folder", error) from error
    remove_strays(folder)


def _unwritable(message: str, error: Exception) -> LmsatError:
    forbidden = getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS)
    return UnwritableError(message) if forbidden else LmsatError(message)


def remove_strays(folder: Path, pattern: str = f".*{PART}") -> None:
    """Remove the half-written files of dead processes from a folder; a living process holds a lock on each of its own.

    The default pattern is that of the files themselves: give ``**/`` before it for all that the folder holds.
    """
    for path in folder.glob(pattern):
        with suppress(OSError), path.open("rb") as file:
            if _lock(file.fileno(), wait=False):
                path.unlink()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file to write, which takes the place of ``path`` once it is whole and on disk.

    What dead processes have left half-written in the folder is removed when this process first writes there.
    Raises `LmsatError` where the folder cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _tidied:
            _tidied.add(path.parent)
            remove_strays(path.parent)
        handle, temporary = _locked_temporary(path)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
            temporary = None
        finally:
            os.close(handle)
        _sync(path.parent)
    except OSError as error:
        message = f"cannot write {path} ({error.strerror or error}): free space or choose another folder"
        raise _unwritable(message, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def _locked_temporary(path: Path) -> tuple[int, Path]:
    """Return the handle of a new file beside ``path``, which holds a lock until it is closed, and the file."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        _lock(handle)
        # Another process may have taken it for a dead one's before it was locked.
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)


def hold(path: Path) -> int:
    """Make a file and lock it, as a mark that lasts while the handle returned is open: no longer than the process."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _lock(handle, shared=True)
    return handle


def is_free(path: Path) -> bool:
    """Return whether no process holds the mark; not where that cannot be told."""
    with suppress(OSError), path.open("rb") as file:
        return _lock(file.fileno(), wait=False)
    return False


def _lock(handle: int, *, wait: bool = True, shared: bool = False) -> bool:
    """Lock an open file, and return whether that could be done: not where another holds it, or there are no locks."""
    try:
        import fcntl

        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def _sync(folder: Path) -> None:
    """Write a folder's entries to disk, so that a renamed file is there after a power cut. Not all systems can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all. Raises as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
