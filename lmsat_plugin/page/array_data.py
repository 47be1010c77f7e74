"""The arrays that the page draws, by checkpoint: by layer, head, position, singular value, and what plugins measure.

What an array is drawn as follows from its shape: one of one axis is a line of each checkpoint, and a row of a heat map;
one of two axes is a table of cells.

Shapes: n entries of an axis, P points that the page has of it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.outside_text import printable
from lmsat_plugin.page.numbers import numbers_of
from lmsat_plugin.results.array_files import ArraysError
from lmsat_plugin.results.json_values import as_text
from lmsat_plugin.results.training_order import natural

logger = logging.getLogger(__name__)

VALUES = 60_000
"""The most values of arrays in a page. Where there are more, it has those of fewer checkpoints."""
POINTS = 48
"""The most points of an axis."""
MOST_CHANGED, CHANGES = 4, 2_000
"""The most documents that got better, and that got worse, of each checkpoint; and of all, fewer of each."""
_LEAST_DOCUMENTS = 10
_ALL_ENTRIES = 4 * POINTS
_DIGITS = 4
_LEAST_CHECKPOINTS = 2
_UNITS = re.compile(r"by_(document|token)(_|$)")
"""Arrays with an entry for each unit of the sample of text, whose order says nothing."""
_COUNTS = re.compile(r"(.+)_(tokens|bytes)")
"""What the entries of another array are means over."""
_JOINING = {"and", "by"}


@dataclass(frozen=True, eq=False)
class ArrayData:
    """What the page holds of arrays."""

    arrays: list[dict[str, Any]]
    """By array: ``name``, ``axes``, and ``models``, each with its ``places`` on the axes, checkpoints and values."""
    changes: list[list[Any]]
    """By checkpoint: model, number, number of the one before, and documents with their losses before and after."""
    not_drawn: list[str]
    """Why arrays are not drawn."""
    arrays_beside: bool
    """Whether each file of arrays lies beside its result and is called as sweeps call it."""


def array_data(analyses: Analyses, checkpoints: Mapping[str, pd.DataFrame]) -> ArrayData:
    """Return the arrays of some checkpoints of each model, and the documents whose losses changed most between them.

    ``checkpoints`` has a row for each checkpoint of a model, with its number ``k``.
    """
    files = _files(analyses, checkpoints)
    changed = CHANGES // max(sum(map(len, files.values())), 1)
    collection = _Collection(analyses, VALUES // max(len(files), 1), min(MOST_CHANGED, max(1, changed)))
    for number, model in enumerate(checkpoints):
        if model in files:
            collection.add(number, files[model])
    return ArrayData(
        arrays=[
            {"name": printable(name), "axes": _axes(name, len(models[0]["shape"])), "models": models}
            for name, models in sorted(collection.models.items(), key=lambda item: natural(item[0]))
        ],
        changes=collection.changes,
        not_drawn=[f"{printable(name)}: {why}" for name, why in collection.refused.items()],
        arrays_beside=collection.beside,
    )


_Files = dict[int, list[tuple[str, str]]]
"""The result files and tasks of checkpoints that may have arrays, by the checkpoint's number."""


def _files(analyses: Analyses, checkpoints: Mapping[str, pd.DataFrame]) -> dict[str, _Files]:
    with_notes = {task.task for task in analyses.results.tasks if task.part is not None}
    keys = ["model", "revision", "at"]
    rows = analyses.table[analyses.table.task.isin(with_notes)][[*keys, "path", "task"]].drop_duplicates()
    numbered = pd.concat(list(checkpoints.values()))[[*keys, "k"]]
    found: dict[str, _Files] = {}
    for model, k, path, task in rows.merge(numbered, on=keys)[["model", "k", "path", "task"]].itertuples(index=False):
        found.setdefault(str(model), {}).setdefault(int(k), []).append((path, task))
    return found


class _Collection:
    """The arrays of models, one model after another."""

    def __init__(self, analyses: Analyses, room: int, changed: int) -> None:
        """Collect at most ``room`` values of each model, but two checkpoints at least.

        ``changed`` are the most documents that got better, and that got worse, of each checkpoint.
        """
        self._analyses, self._room, self._most_changed = analyses, room, changed
        self.models: dict[str, list[dict[str, Any]]] = {}
        self.changes: list[list[Any]] = []
        self.refused: dict[str, str] = {}
        self.beside = True

    def add(self, model: int, files: _Files) -> None:
        """Add a model's arrays: of evenly spaced checkpoints, the first and the last among them."""
        numbers = sorted(files)
        last = self._read(files[numbers[-1]])
        points = sum(one.values.size for one in self._drawn(last).values())
        most = min(len(numbers), max(_LEAST_CHECKPOINTS, self._room // max(points, 1)))
        own: dict[str, dict[str, Any]] = {}
        before: tuple[int, np.ndarray, np.ndarray] | None = None
        for place in np.linspace(len(numbers) - 1, 0, most).round().astype(int)[::-1]:
            k = numbers[place]
            arrays = self._read(files[k])
            for name, one in self._drawn(arrays).items():
                content = own.setdefault(name, {"places": one.places, "shape": one.shape, "k": [], "values": []})
                if content["shape"] == one.shape:
                    content["k"].append(k)
                    content["values"].append(numbers_of(one.values, _DIGITS))
                else:
                    self.refused[name] = "where its shape is another one than at a model's first checkpoint"
            losses = _losses_by_document(arrays)
            if losses is not None and before is not None and np.array_equal(losses[1], before[2]):
                self.changes.append([model, k, before[0], _changed(before[1], losses[0], self._most_changed)])
            before = None if losses is None else (k, *losses)
        for name, content in own.items():
            self.models.setdefault(name, []).append({"model": model, **content})

    def _read(self, files: Sequence[tuple[str, str]]) -> dict[str, np.ndarray]:
        """Return all arrays of a checkpoint; what cannot be read is left out with a warning."""
        found: dict[str, np.ndarray] = {}
        read = set()
        for path, task in files:
            named = as_text(self._analyses.results.notes(path, task).get("arrays"))
            if named is None or (path, named) in read:
                continue
            read.add((path, named))
            stamp = Path(path).stem.removeprefix("results_")
            self.beside = self.beside and named == f"arrays_{stamp}.safetensors"
            try:
                found |= self._analyses.results.arrays(path, task, "")
            except ArraysError as error:
                logger.warning("Left out: %s", error)
            except LmsatError as error:
                logger.info("No arrays: %s", error)
        return found

    def _drawn(self, arrays: Mapping[str, np.ndarray]) -> dict[str, _Thinned]:
        """Return the arrays that are drawn, and note why others are not."""
        drawn = {}
        for name, array in arrays.items():
            counted = _COUNTS.fullmatch(name)
            if _UNITS.search(name) or (counted and counted[1] in arrays):
                continue
            if array.ndim in (1, 2) and array.dtype.kind in "fiub" and array.size:
                weights = arrays.get(f"{name}_tokens")
                drawn[name] = _thinned(array, weights if weights is not None and weights.shape == array.shape else None)
            else:
                self.refused[name] = f"it has {array.ndim} axes" if array.size else "it is empty"
        return drawn


@dataclass(frozen=True, eq=False)
class _Thinned:
    """An array as the page draws it."""

    places: list[list[Any]]
    """Of each axis: the first entry of each point, 0 for all; the number of entries; whether points are means."""
    shape: tuple[int, ...]
    values: np.ndarray
    """All points, row by row."""


def _thinned(array: np.ndarray, weights: np.ndarray | None) -> _Thinned:
    """Return at most `POINTS` of each axis: all entries, some of them, or means over stretches that grow.

    Means leave out what is not finite, and are weighted.
    """
    values = np.asarray(array, dtype=np.float64)
    counts = np.ones(values.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    places = []
    for axis, length in enumerate(array.shape):
        firsts, is_mean = points_of(length, _ALL_ENTRIES if weights is None else POINTS)
        if is_mean:
            finite = np.isfinite(values)
            sums = np.add.reduceat(np.where(finite, values * counts, 0.0), firsts, axis=axis)
            counts = np.add.reduceat(np.where(finite, counts, 0.0), firsts, axis=axis)
            values = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        else:
            values, counts = values.take(firsts, axis=axis), counts.take(firsts, axis=axis)
        places.append([0 if len(firsts) == length else firsts.tolist(), length, is_mean])
    return _Thinned(places, array.shape, values.ravel())


def points_of(length: int, most: int = _ALL_ENTRIES) -> tuple[np.ndarray, bool]:
    """Return the first entry of each of at most `POINTS` points, and whether these are means up to the next point's.

    Axes of up to `POINTS` entries have them all, those of up to ``most`` some of them: layers stay layers. Longer ones
    have stretches of equal length on a logarithmic axis.
    """
    if length <= max(most, POINTS):
        return np.linspace(0, length - 1, min(length, POINTS)).round().astype(int), False
    ends = np.unique(np.geomspace(1, length + 1, POINTS + 1).round().astype(int))
    return ends[:-1] - 1, True


def _axes(name: str, count: int) -> list[str]:
    """Return what an array's axes are called, as far as its name says it."""
    words = [word for word in name.rpartition("by_")[2].split("_") if word not in _JOINING] if "by_" in name else []
    if count == 1:
        last = name.rpartition("/")[2].replace("_", " ")
        return [" ".join(words) or (last.removesuffix("s") if last.endswith("s") else f"entry of {last}")]
    return words if len(words) == count else ["layer", "head"] if words == ["head"] else ["row", "column"]


def _losses_by_document(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the loss of each document, nats per token, and its tokens; None where there are few or it is not known."""
    nats, tokens = (arrays.get(f"loss/by_document{suffix}") for suffix in ("", "_tokens"))
    if nats is None or tokens is None or nats.shape != tokens.shape or len(nats) < _LEAST_DOCUMENTS:
        return None
    return np.divide(nats, tokens, out=np.full(len(nats), np.nan), where=tokens > 0), tokens


def _changed(before: np.ndarray, after: np.ndarray, most: int) -> list[list[Any]]:
    """Return the documents that got better most, then those that got worse most, with their losses."""
    rise = after - before
    known = np.flatnonzero(np.isfinite(rise))
    order = known[np.argsort(rise[known], kind="stable")]
    better = [place for place in order[:most] if rise[place] < 0]
    worse = [place for place in order[::-1][:most] if rise[place] > 0]
    return [[int(place), *numbers_of([before[place], after[place]], _DIGITS)] for place in (*better, *worse)]
