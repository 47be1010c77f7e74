"""Probes in a file, without a package: how they are read, which files are used, and what identifies a probe's code."""

from __future__ import annotations

import ast
import atexit
import functools
import hashlib
import inspect
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import kind_of, user_path, write_atomically
from lmsat_plugin.plugin_code import contained
from lmsat_plugin.probe import Probe

VARIABLE = "LMSAT_PROBES"
"""Names the files that this process, and those that it starts, use, with ``:`` between them (``;`` on Windows)."""
_SOURCE = "__lmsat_source__"
_OWN = "lmsat_plugin."
TASK = "task: {task}\nclass: !function lmsat_plugin.harness.task.ProbeTask\nprobe: {name}\n"
"""The YAML file of a probe's task."""


def named_files() -> list[Path]:
    """Return the files that the environment names."""
    return [Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def name_files(paths: Iterable[Path]) -> None:
    """Add files to those that the environment names."""
    os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(map(str, [*named_files(), *paths])))


def absolute(name: str | Path) -> Path:
    """Return the path of a file of probes. Raises `LmsatError` for one that is not there, or is no Python file."""
    path = user_path(name).absolute()
    if kind_of(path) != "file":
        raise LmsatError(f"{name} is no file with a probe: there is no such file; correct its name")
    if path.suffix != ".py":
        raise LmsatError(f"{name} is no file with a probe: give one that ends in .py")
    return path


def read_probes(path: Path) -> list[type[Probe]]:
    """Return the classes of probes that a file defines, in its order. A file that has changed is read again.

    Raises `LmsatError` for a file that cannot be read, does not import, or defines no probe.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise LmsatError(f"{path} cannot be read ({error.strerror}): correct its name or its rights") from error
    return _run(path, source)


@functools.cache
def _run(path: Path, source: bytes) -> list[type[Probe]]:
    module = ModuleType(f"lmsat_probe_file_{hashlib.sha256(bytes(path) + source).hexdigest()[:12]}")
    vars(module).update({"__file__": str(path), _SOURCE: source})
    # Dataclasses and type hints look a class' module up.
    sys.modules[module.__name__] = module
    try:
        with contained():
            exec(compile(source, str(path), "exec"), vars(module))
    except Exception as error:
        del sys.modules[module.__name__]
        raise LmsatError(f"{path} does not import ({first_sentence(error)}): correct it") from error
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Probe) and value.__module__ == module.__name__
    ]
    if not (found := [kind for kind in dict.fromkeys(found) if not inspect.isabstract(kind)]):
        raise LmsatError(
            f"{path} defines no probe: give it a class that derives from lmsat_plugin.Probe, with start and finish"
        )
    return found


def task_folder() -> Path | None:
    """Return a folder with a task for each probe of the files that the environment names; None if there are none.

    A file that does not import has none; `lmsat_plugin.plugins` says why.
    """
    tasks: dict[str, str] = {}
    for path in named_files():
        try:
            tasks.update({kind.task(): TASK.format(task=kind.task(), name=kind.name) for kind in read_probes(path)})
        except (LmsatError, AttributeError):
            continue
    if not tasks:
        return None
    folder = _temporary()
    for old in folder.glob("*.yaml"):
        if old.stem not in tasks:
            old.unlink()
    for task, text in tasks.items():
        write_atomically(folder / f"{task}.yaml", text.encode())
    return folder


@functools.cache
def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="lmsat-tasks-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def source_of(kind: type[Probe]) -> Path | None:
    """Return the file of probes that a class was read from; None for one of a package, or of no file."""
    module = sys.modules.get(kind.__module__)
    return Path(str(vars(module)["__file__"])) if module is not None and hasattr(module, _SOURCE) else None


def is_own(defined: Any) -> bool:
    """Return whether a class or a function is lmsat's own."""
    return str(getattr(defined, "__module__", "")).startswith(_OWN)


def source_sha256(kind: Any) -> str | None:
    """Return the SHA-256 of the code of the file that defines a probe, or a function of it.

    Comments, docstrings and spaces do not count.

    None for lmsat's own probes, which have versions, and for a class that was defined in no file.
    """
    if is_own(kind):
        return None
    source = getattr(sys.modules.get(kind.__module__), _SOURCE, None)
    with suppress(TypeError):
        return _code_sha256(source, None if source is not None else inspect.getsourcefile(kind))
    return None


@functools.cache
def _code_sha256(source: Any, file: str | None) -> str | None:
    """Return the hash of a source, or of the code that a file has when it is asked for first."""
    try:
        tree = ast.parse(source if source is not None else Path(file or "").read_bytes())
    except (OSError, SyntaxError, TypeError, ValueError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = _without_docstring(node.body)
    return hashlib.sha256(ast.dump(tree).encode("utf-8", "surrogatepass")).hexdigest()


def _without_docstring(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    # Also that of a field, which is a string below it.
    return [
        one
        for one in body
        if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and isinstance(one.value.value, str))
    ]
