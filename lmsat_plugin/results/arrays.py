"""The arrays that a result file names. Imports neither lm_eval nor torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.results.json_values import as_text
from lmsat_plugin.results.reading import ResultFile


def read_arrays(file: ResultFile, task: str, prefixes: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the arrays of a task's measurement whose names begin with one of the prefixes.

    The result file names the file of its arrays. Where that is not found, as in a tree that was moved, a file of the
    same name beside the result file is read.

    Raises:
        LmsatError: For a task without arrays, and for arrays that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    name = as_text(file.notes(task).get("arrays"))
    if name is None:
        raise LmsatError(f"{task} has left no arrays: run it again with arrays=FOLDER in --model_args, or in a sweep")
    path = file.path.parent / name
    if not path.exists() and (neighbour := file.path.parent / Path(name).name).exists():
        path = neighbour
    try:
        with safe_open(path, framework="numpy") as stored:
            keys = [key for key in stored.keys() if key.startswith(tuple(prefixes))]  # noqa: SIM118
            return {key: stored.get_tensor(key) for key in keys}
    except (OSError, ValueError, SafetensorError) as error:
        raise LmsatError(
            f"the arrays {path} cannot be read ({first_sentence(error)}): restore them or run {task} again"
        ) from error
