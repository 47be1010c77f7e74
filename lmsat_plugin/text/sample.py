"""The built-in text: CPython's own documentation, read from the standard library and kept for the next start."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import cache_folder, stamp_file, write_atomically


@functools.cache
def sample_documents() -> tuple[str, ...]:
    """Return CPython's help topics, then the docstrings of each standard module, a document each.

    Reading them takes a second or two. So they are kept in the user's cache, with the sizes and times of the files that
    they were read from.
    """
    # Several installations do not throw out each other's.
    place = _digest(f"{os.__file__}\0{__file__}".encode("utf-8", "surrogatepass"))
    kept, key = cache_folder() / f"sample-{place[:12]}.json", _key()
    with suppress(OSError, ValueError):
        stated, digest, data = kept.read_bytes().split(b"\n", 2)
        if stated.decode() == key and digest.decode() == _digest(data):
            return tuple(json.loads(data))
    documents = _read_documents()
    data = json.dumps(documents).encode()
    with suppress(LmsatError, OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, b"\n".join((key.encode(), _digest(data).encode(), data)))
    return documents


def _read_documents() -> tuple[str, ...]:
    from pydoc_data.topics import topics

    modules = (ast.parse(path.read_bytes()) for path in _standard_modules())
    return (
        *topics.values(),
        *("\n\n".join(filter(None, map(ast.get_docstring, _documented(each)))) for each in modules),
    )


def _documented(module: ast.Module) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield a module, its classes and its functions, in the order of `ast.walk`.

    Expressions, which are most of a tree, hold none of them and are left out.
    """
    holders = (ast.stmt, ast.ExceptHandler, ast.match_case)
    waiting: deque[ast.AST] = deque([module])
    while waiting:
        node = waiting.popleft()
        waiting.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, holders))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _standard_modules() -> list[Path]:
    return sorted(Path(os.__file__).parent.glob("*.py"))


def _key() -> str:
    """Return what the documents depend on: the interpreter, the files' states, and how they are read here."""
    library = Path(os.__file__).parent
    files = [*_standard_modules(), *sorted(library.glob("pydoc_data/*.py")), Path(__file__)]
    return _digest(json.dumps([sys.version, str(library), [(path.name, *stamp_file(path)) for path in files]]).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
