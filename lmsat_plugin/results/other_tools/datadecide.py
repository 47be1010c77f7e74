"""DataDecide's evaluations (Magnusson et al. 2025): ``allenai/DataDecide-eval-results``, as CSV or Parquet.

The layout is that of the published Parquet shards, which ``release/upload_eval.py`` of DataDecide's repository
writes: ``params`` (nominal, such as 150M), ``data``, ``task``, ``step``, ``seed`` (``default``, ``small aux 2``),
``tokens``, and ``metrics``, the text of a Python or a JSON dict. Their averages over tasks (``olmes_10_macro_avg``)
are left out.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lmsat_plugin.results.checkpoint_names import parse_count, parse_progress
from lmsat_plugin.results.json_values import as_dict, as_text
from lmsat_plugin.results.other_tools.documents import Document, Score, count_of, documents
from lmsat_plugin.results.other_tools.olmes import read_values

_PLACE = ("data", "params", "seed", "step")
_COLUMNS = {*_PLACE, "task", "metrics"}
READ = {*_COLUMNS, "tokens"}
"""The columns that are read."""
_AS_JSON = {"None": "null", "nan": "NaN", "inf": "Infinity", "True": "true", "False": "false"}
_CONSTANTS = re.compile(rf"(?<=[\s:\[-])(?:{'|'.join(_AS_JSON)})(?=[\s,\]}}])")
_SHOTS = 5
"""OLMES' tasks have five."""


def is_layout(columns: set[str]) -> bool:
    """Return whether a table with these columns has this layout."""
    return columns >= _COLUMNS


def read(rows: Iterable[dict[str, Any]], path: Path) -> Iterator[Document]:
    """Yield a document for each checkpoint: a model for each recipe and size, and a run for each seed."""
    del path
    checkpoints: dict[tuple[str, ...], tuple[dict[str, Any], list[Score]]] = {}
    for row in rows:
        if missing := [name for name in _PLACE if row[name] is None]:
            raise ValueError(f"a row has no {missing[0]}")
        key = tuple(str(row[name]) for name in _PLACE)
        _, scores = checkpoints.setdefault(key, (row, []))
        # The text of the metrics is many times as large as their values.
        if not str(row["task"]).endswith("_macro_avg"):
            scores.append(_score(row))
        del row["metrics"]
    for (recipe, size, seed, _), (first, scores) in checkpoints.items():
        step = count_of(first, "step")
        revision = f"step{step}-seed-{seed.replace(' ', '-')}"
        model = f"DataDecide {recipe} {size}"
        config = {
            "library": "olmes",
            "model_args": {"pretrained": model, "revision": revision},
            "model_num_parameters": parse_count(size),
        }
        # Branches on the Hub have this name.
        checkpoint = {"model": model, "revision": revision, "step": step, "run": parse_progress(revision).run}
        tokens = count_of(first, "tokens")
        yield from documents(scores, config, part=f"{model} {revision}", checkpoint={**checkpoint, "tokens": tokens})


def _score(row: dict[str, Any]) -> Score:
    values = read_values(_dict_of(row["metrics"]))
    return Score(task=as_text(row["task"]) or "unknown", values=values, shots=_SHOTS)


def _dict_of(value: Any) -> dict[str, Any]:
    """Return a dict, also of its text in Python or JSON. Raises ValueError for text that is neither."""
    if not isinstance(value, str):
        return {key: number for key, number in as_dict(value).items() if number is not None}
    try:
        # Python's own text of numbers differs from JSON in its quotes alone, and is read fifty times as fast so.
        return as_dict(json.loads(_CONSTANTS.sub(lambda match: _AS_JSON[match[0]], value.replace("'", '"'))))
    except ValueError:
        pass
    try:
        return as_dict(ast.literal_eval(value))
    except (SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError(f"its metrics are no dict: '{value:.40}'") from error
