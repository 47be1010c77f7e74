"""The files of the user's that make a task: its YAML, what that includes, modules of its functions, its local data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import FileStamp, kind_of, read_file, stamp_file, user_path

_FORMATS = {"arrow", "csv", "json", "pandas", "parquet", "text", "xml"}
"""What `datasets` takes for a format, though there may be a folder of this name."""


def task_files(yaml: Path, config: Mapping[str, Any]) -> list[Path]:
    """Return the files, besides its own YAML, that a task depends on.

    ``config`` is the YAML, its functions unresolved.
    """
    data = config.get("dataset_kwargs") or {}
    named = [*_texts([data.get(key) for key in ("data_files", "data_dir")])]
    if (path := str(config.get("dataset_path") or "")) not in _FORMATS:
        named.append(path)
    places = [(_data_folder(data), str(name)) for name in named if name]
    found = [*_included(yaml), *_modules(config), *(file for place, name in places for file in _found(place, name))]
    return sorted({path.resolve() for path in found} - {yaml.resolve()})


def sha256_of(files: Iterable[Path]) -> str:
    """Return a hash of names and contents of files. Raises `LmsatError` for one that cannot be read."""
    digest = hashlib.sha256()
    for path in files:
        try:
            content = read_file(path)
        except OSError as error:
            raise LmsatError(f"{path}, of a task, cannot be read ({error.strerror}): correct its rights") from error
        digest.update(f"{path.name}\0{len(content)}\0".encode("utf-8", "surrogatepass") + content)
    return digest.hexdigest()


def stamps_of(files: Iterable[Path]) -> tuple[tuple[Path, FileStamp | None], ...]:
    """Return each file with its stamp; None for one that is gone."""

    def stamp(path: Path) -> FileStamp | None:
        with suppress(OSError):
            return stamp_file(path)
        return None

    return tuple((path, stamp(path)) for path in files)


def _included(yaml: Path) -> Iterator[Path]:
    from lm_eval.tasks._yaml_loader import load_yaml

    own = load_yaml(yaml, resolve_func=False, recursive=False)
    names = own.get("include") or []
    for name in [names] if isinstance(names, str) else names:
        path = yaml.parent / name
        yield path
        yield from _included(path)


def _modules(config: Any) -> Iterator[Path]:
    """Yield the modules beside the YAML that hold its functions: an unresolved function is ``FOLDER/MODULE.NAME``."""
    for text in _texts(config):
        if text.startswith("/") and "\n" not in text:
            folder, _, function = text.rpartition("/")
            path = Path(folder, f"{function.rpartition('.')[0].replace('.', '/')}.py")
            if kind_of(path) == "file":
                yield path


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for each in value.values() for text in _texts(each))
    elif isinstance(value, list | tuple):
        yield from (text for each in value for text in _texts(each))


def _data_folder(data: Mapping[str, Any]) -> Path:
    return user_path(str(data.get("data_dir") or "."))


def _found(place: Path, name: str) -> Iterator[Path]:
    """Yield the files that a path, a folder or a glob stands for, seen from here or from the data's own folder."""
    for path in (user_path(name), place / name):
        if kind_of(path) == "file":
            yield path
        elif kind_of(path) == "folder":
            yield from (file for file in sorted(path.rglob("*")) if kind_of(file) == "file")
    if any(sign in name for sign in "*?["):
        with suppress(ValueError, NotImplementedError):
            yield from (file for file in sorted(place.glob(name)) if kind_of(file) == "file")
