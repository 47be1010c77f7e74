"""The index of lm-eval's own tasks, kept for the next start: to make it, 14,000 YAML files are parsed."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import lm_eval.tasks
from lm_eval.tasks._index import Entry, Kind, TaskIndex

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import FileStamp, cache_folder, stamp_of_status, write_atomically

LM_EVAL_TASKS = Path(lm_eval.tasks.__file__).parent


@functools.cache
def lm_eval_index() -> dict[str, Entry]:
    """Return lm-eval's own tasks, groups and tags by name, without their configurations."""
    kept, key = cache_folder() / "lm_eval_tasks.json", _key()
    with suppress(OSError, ValueError, KeyError, TypeError):
        stated, digest, data = kept.read_bytes().split(b"\n", 2)
        if stated.decode() == key and digest.decode() == hashlib.sha256(data).hexdigest():
            return {
                name: Entry(name, Kind[kind], LM_EVAL_TASKS / path if path else None, tags=set(tags))
                for name, kind, path, tags in json.loads(data)
            }
    # lmsat's start-up hook adds folders where lm-eval's own comes first.
    index = TaskIndex.build([Path(os.devnull), LM_EVAL_TASKS])
    rows = []
    for name, entry in index.items():
        path = entry.yaml_path and str(entry.yaml_path.relative_to(LM_EVAL_TASKS))
        rows.append((name, entry.kind.name, path, sorted(entry.tags)))
    data = json.dumps(rows).encode()
    with suppress(LmsatError, OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, b"\n".join((key.encode(), hashlib.sha256(data).hexdigest().encode(), data)))
    return index


def _key() -> str:
    """Return what the index depends on: lm-eval's version, the states of its files, and how they are read here."""
    files = sorted(_yaml_files(str(LM_EVAL_TASKS)))
    own = Path(__file__).read_bytes()
    text = json.dumps([version("lm_eval"), str(LM_EVAL_TASKS), files, hashlib.sha256(own).hexdigest()])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _yaml_files(folder: str) -> Iterator[tuple[str, FileStamp]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _yaml_files(entry.path)
            elif not entry.name.endswith((".py", ".pyc")):
                yield entry.path, stamp_of_status(entry.stat())
