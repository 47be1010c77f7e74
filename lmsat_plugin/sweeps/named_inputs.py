"""Model arguments that name files, such as ``tokenizer``: results depend on what is in these, not on their names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import FileStamp, check_file, kind_of, stamp_file, user_path

_FILES = ("head",)
_FOLDERS = ("tokenizer", "peft", "delta")
"""Folders, or names on the Hub."""
INPUTS = (*_FILES, *_FOLDERS)


def by_content(model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return model arguments with a hash of the files in the place of each path.

    Raises `LmsatError` for a file that is not there or cannot be read.
    """
    hashed = {name: _sha256_of(name, [user_path(model_args[name])]) for name in _FILES if name in model_args}
    for name in _FOLDERS:
        if (value := model_args.get(name)) is not None and kind_of(folder := user_path(str(value))) == "folder":
            hashed[name] = _sha256_of(name, sorted(path for path in folder.iterdir() if kind_of(path) == "file"))
    return {**model_args, **hashed}


def _sha256_of(argument: str, paths: list[Path]) -> str:
    """Return the SHA-256 of a file, or of the names and contents of several."""
    hashes = []
    for path in paths:
        try:
            check_file(path)
            hashes.append(f"{path.name}\0{_sha256(path, stamp_file(path))}")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise LmsatError(f"{argument}={path} cannot be read ({reason}): correct its name") from error
    if argument in _FILES:
        return hashes[0].rpartition("\0")[2]
    return hashlib.sha256("\0".join(hashes).encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=1000)
def _sha256(path: Path, stamp: FileStamp) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
