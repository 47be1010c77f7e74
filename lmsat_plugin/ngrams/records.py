"""Records of n-grams, parted by key: in memory, or in a nameless file when they are many.

Shapes: N records.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lmsat_plugin.errors import LmsatError

_IN_MEMORY = 1 << 24


class Records:
    """Keys and successors, parted by the first 8 bits of the key; beyond 17 million they go to a file."""

    def __init__(self, temporary: Path | None) -> None:
        self._folder = temporary
        self._file: BinaryIO | None = None
        self._runs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._unwritten = 0

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self._runs.clear()
        if self._file is not None:
            self._file.close()

    def add(self, keys_N: np.ndarray, successors_N: np.ndarray) -> None:
        """Add records. Raises `LmsatError` if they do not fit on the disk."""
        parts_N = (keys_N >> np.uint64(56)).astype(np.uint8)
        order = np.argsort(parts_N, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(parts_N, minlength=256))])
        self._runs.append((keys_N[order], successors_N[order], bounds))
        if sum(len(keys) for keys, *_ in self._runs[self._unwritten :]) > _IN_MEMORY:
            try:
                self._write()
            except OSError as error:
                raise LmsatError(
                    f"the n-grams cannot be kept in {self._folder or tempfile.gettempdir()} ({error.strerror}): "
                    "free space, or name another folder with --temporary FOLDER"
                ) from error

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        for index in range(self._unwritten, len(self._runs)):
            keys, successors, bounds = self._runs[index]
            mapped = []
            for column in (keys, successors):
                offset = self._file.tell()
                self._file.write(column.data)
                self._file.flush()
                mapped.append(np.memmap(self._file, dtype=column.dtype, mode="r", offset=offset, shape=column.shape))
                self._file.seek(0, 2)
            self._runs[index] = (mapped[0], mapped[1], bounds)
        self._unwritten = len(self._runs)

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the keys and the successors of each part."""
        for part in range(256):
            slices = [
                (keys[bounds[part] : bounds[part + 1]], successors[bounds[part] : bounds[part + 1]])
                for keys, successors, bounds in self._runs
            ]
            if any(len(keys) for keys, _ in slices):
                keys_N, successors_N = map(np.concatenate, zip(*slices, strict=True))
                yield keys_N, successors_N
