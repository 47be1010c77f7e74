"""Read a large tree once: what its result files held is kept beside it, by each file's size and times.

`FILES` has what was read of each file, so that only files that changed are read again; `TABLE` has the whole table, for
a tree in which nothing changed. Both have digests of their own and may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin import metrics
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import read_file, write_atomically
from lmsat_plugin.results.checkpoint_names import TrainingProgress
from lmsat_plugin.results.failures import FAILURES
from lmsat_plugin.results.origins import Naming, Origin
from lmsat_plugin.results.reading import BrokenResultError, ResultFile, TaskResult, read_result_file, summarised
from lmsat_plugin.results.training_order import Totals
from lmsat_plugin.results.tree_files import TreeFile, files_of_trees

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

FILES, TABLE = ".lmsat.read", ".lmsat.table"
"""The names of the cache's files in the folder that was read."""
WORTHWHILE = 1000
"""A cache is written once so many files were read."""
_TICK_NS = 2_000_000_000
"""A file that changed this shortly before it was read may change again and have the same times."""
_NOTE = b"lmsat_note"
_OF_TASKS = [field.name for field in fields(TaskResult) if field.name != "origin"]


class Cache:
    """What is kept of a tree that was found to hold some files, whose names are read in some way.

    Nothing is kept of several trees, which lie in a folder that nobody named.
    """

    def __init__(self, roots: Sequence[Path], naming: Naming) -> None:
        self.root, self.found = files_of_trees(roots)
        self.naming = naming
        self.is_worthwhile = len(roots) == 1 and len(self.found) >= WORTHWHILE
        self._newest = time.time_ns() - _TICK_NS

    @cached_property
    def _key(self) -> str:
        """All that a row depends on beside the file: the code, the folder's own name, and how names are read."""
        code = hashlib.sha256()
        for path in (*sorted(Path(__file__).parent.rglob("*.py")), Path(metrics.__file__)):
            code.update(path.read_bytes())
        pattern = self.naming.pattern.pattern if self.naming.pattern else None
        return json.dumps([code.hexdigest(), str(self.root.absolute()), pattern, self.naming.tokens_per_step])

    def read_files(self) -> tuple[list[ResultFile], list[str]]:
        """Return the result files, and a warning for each broken one, which is left out."""
        data = self._load(FILES, self._key) if self.is_worthwhile else None
        rows: dict[str, list[Any]] = {} if data is None else json.loads(data)
        files: list[ResultFile] = []
        warnings: list[str] = []
        broken: list[BrokenResultError] = []
        kept: dict[str, list[Any]] = {}
        for file in self.found:
            if file.name.rpartition("/")[2] == FAILURES:
                continue
            row = rows.get(file.name)
            is_known = row is not None and tuple(row[0]) == file.stamp
            try:
                if row is not None and is_known:
                    results = [_from_row(entry, file, index) for index, entry in enumerate(row[1:])]
                else:
                    results = read_result_file(file, self.naming, keep_rest=not self.is_worthwhile)
            except BrokenResultError as error:
                broken.append(error)
                continue
            files += results
            warnings += [result.warning for result in results if result.warning]
            if self.is_worthwhile and self._is_settled(file):
                known = row if row is not None and is_known else [file.stamp, *map(_to_row, results)]
                kept[file.name] = known
        if len(kept.keys() - rows.keys()) >= WORTHWHILE:
            self._store(FILES, self._key, json.dumps(kept).encode())
        return files, [*summarised(broken), *warnings]

    def read_table(self, *, all_results: bool) -> pd.DataFrame | None:
        """Return the table of the tree; None unless it was kept and no file has changed since."""
        import pyarrow as pa

        data = self._load(TABLE, self._key_of_table(all_results)) if self.is_worthwhile else None
        if data is None:
            return None
        kept = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        if note := (kept.schema.metadata or {}).get(_NOTE):
            logger.warning("%s", note.decode())
        texts = [field.name for field in kept.schema if pa.types.is_dictionary(field.type)]
        table = kept.drop_columns(texts).to_pandas()
        return table.assign(**{name: _from_dictionary(kept[name]) for name in texts})[kept.column_names]

    def write_table(self, table: pd.DataFrame, *, all_results: bool, note: str | None = None) -> None:
        """Keep the table of the tree, and what is said of it whenever it is read."""
        import pyarrow as pa

        if not self.is_worthwhile or not all(map(self._is_settled, self.found)):
            return
        kept = pa.Table.from_pandas(table, preserve_index=False)
        for index, name in enumerate(kept.column_names):
            if table[name].dtype == object:
                kept = kept.set_column(index, name, pa.array(table[name], pa.string()).dictionary_encode())
        if note is not None:
            kept = kept.replace_schema_metadata({**(kept.schema.metadata or {}), _NOTE: note.encode()})
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_file(buffer, kept.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as file:
            file.write_table(kept)
        self._store(TABLE, self._key_of_table(all_results), buffer.getvalue().to_pybytes())

    def _key_of_table(self, all_results: bool) -> str:
        states = hashlib.sha256(json.dumps([(file.name, file.stamp) for file in self.found]).encode())
        return json.dumps([self._key, all_results, states.hexdigest()])

    def _is_settled(self, file: TreeFile) -> bool:
        return max(file.stamp[1:]) < self._newest

    def _load(self, name: str, key: str) -> bytes | None:
        """Return what was stored; None unless it is whole and of this key."""
        try:
            digest, stated, data = read_file(self.root / name).split(b"\n", 2)
        except (OSError, ValueError):
            return None
        return data if stated == key.encode() and digest == _digest(stated, data) else None

    def _store(self, name: str, key: str, data: bytes) -> None:
        # A folder that cannot be written is read without a cache.
        with suppress(LmsatError):
            write_atomically(self.root / name, b"\n".join((_digest(key.encode(), data), key.encode(), data)))


def _digest(key: bytes, data: bytes) -> bytes:
    digest = hashlib.sha256(key)
    digest.update(data)
    return digest.hexdigest().encode()


def _from_dictionary(column: Any) -> pd.Series:
    """Return a column of text as objects, None where it is missing."""
    import numpy as np
    import pandas as pd

    chunk = column.combine_chunks()
    texts = np.array([*chunk.dictionary.to_pylist(), None], dtype=object)
    return pd.Series(texts[chunk.indices.fill_null(len(texts) - 1).to_numpy()], dtype="object")


def _to_row(result: ResultFile) -> list[Any]:
    origin = result.origin
    stated: list[Any] = [origin.path, origin.model, origin.revision, origin.commit]
    stated += [astuple(origin.progress), origin.totals, origin.is_noted]
    supersedes = {name: sorted(tasks) for name, tasks in origin.supersedes.items()}
    tasks = [[getattr(task, name) for name in _OF_TASKS] for task in result.tasks]
    return [[*stated, origin.sizes, origin.date, origin.settings, supersedes], tasks, result.warning]


def _from_row(row: list[Any], file: TreeFile, index: int) -> ResultFile:
    stated, tasks, warning = row
    path, model, revision, commit, progress, totals, is_noted, sizes, date, settings, supersedes = stated
    origin = Origin(
        path=path,
        model=model,
        revision=revision,
        commit=commit,
        progress=TrainingProgress(*progress),
        totals=Totals(*totals),
        is_noted=is_noted,
        sizes=sizes,
        date=date,
        settings=settings,
        supersedes={name: set(tasks) for name, tasks in supersedes.items()},
    )
    return ResultFile(
        path=Path(file.path),
        origin=origin,
        tasks=[_task(origin, dict(zip(_OF_TASKS, task, strict=True))) for task in tasks],
        rest=file.stamp,
        index=index,
        warning=warning,
    )


def _task(origin: Origin, stated: dict[str, Any]) -> TaskResult:
    return TaskResult(origin=origin, **{**stated, "metrics": list(map(tuple, stated["metrics"]))})
