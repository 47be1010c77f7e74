"""The arrays of a result: a safetensors file beside it, which the result names with digest, names, types and shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import read_file
from lmsat_plugin.results.json_values import as_dict, as_text

_BY_DOCUMENT = "loss/by_document", "loss/by_document_tokens"
"""Nats and tokens of each document; the loss is the ratio of their sums."""
_RELATIVE_TOLERANCE = 1e-6


class ArraysError(LmsatError):
    """Arrays that a result names are missing, damaged, or not those of that result; ``fault`` says which and how."""

    def __init__(self, fault: str, remedy: str = "measure again") -> None:
        super().__init__(f"{fault}: restore them or {remedy}")
        self.fault = fault


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[bytes, dict[str, Any]]:
    """Return the content of a file of arrays, and what binds it to a result, for lmsat's notes in that result."""
    from safetensors.numpy import save

    data = save({name: array.copy() for name, array in arrays.items()})
    content = {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}
    return data, {"arrays_sha256": hashlib.sha256(data).hexdigest(), "arrays_content": content}


def array_path(result: Path, notes: Mapping[str, Any]) -> Path | None:
    """Return where the arrays of a result file are: where its notes say, or, in a tree that was moved, beside it.

    None if the notes name none.
    """
    name = as_text(notes.get("arrays"))
    if name is None:
        return None
    path, neighbour = result.parent / name, result.parent / Path(name).name
    return neighbour if not path.exists() and neighbour.exists() else path


def read_arrays(path: Path, notes: Mapping[str, Any], losses: Collection[float]) -> dict[str, np.ndarray]:
    """Return the arrays in a file, by name, checked against what the result that names it says of them.

    ``notes`` are lmsat's in that result, and ``losses`` its values of ``loss``, of which each is the mean over the
    documents. Results of older versions state no digest: of their arrays only that mean is checked.

    Raises `ArraysError` for arrays that are not there, not whole, or not those that were measured.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = read_file(path)
        arrays = load(data)
    except FileNotFoundError:
        raise ArraysError(f"the arrays {path} cannot be read (the file is missing)") from None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ArraysError(f"the arrays {path} cannot be read ({first_sentence(error)})") from error
    stated = as_dict(notes.get("arrays_content"))
    if stated and (difference := _difference(arrays, stated)):
        raise _refusal(path, difference)
    if "arrays_sha256" in notes and notes["arrays_sha256"] != hashlib.sha256(data).hexdigest():
        raise _refusal(path, "their digest is not the one in the result")
    mean = _mean_loss(arrays)
    for loss in losses:
        if mean is not None and not abs(mean - loss) <= _RELATIVE_TOLERANCE * abs(loss):
            raise _refusal(path, f"the mean loss over the documents is {mean:.9g} and the result's is {loss:.9g}")
    return arrays


def loss_tasks(notes: Mapping[str, Any]) -> set[str]:
    """Return the tasks among those of lmsat's notes whose value ``loss`` is the mean of arrays.

    Older versions did not note the probes of tasks.
    """
    probes = as_dict(notes.get("tasks")) or {"lmsat_loss": "loss"}
    return {task for task, probe in probes.items() if probe == "loss"}


def _refusal(path: Path, what: str) -> ArraysError:
    return ArraysError(f"the arrays {path} are not those that were measured ({what})")


def _difference(arrays: Mapping[str, np.ndarray], stated: Mapping[str, Any]) -> str | None:
    """Return how names, types or shapes are not those in the result."""
    if missing := sorted(stated.keys() - arrays.keys()):
        return f"{missing[0]} is missing"
    if added := sorted(arrays.keys() - stated.keys()):
        return f"{added[0]} was added"
    for name, array in arrays.items():
        there = [str(array.dtype), list(array.shape)]
        if there != stated[name]:
            return f"{name} is {there[0]} of shape {there[1]} and was {stated[name]}"
    return None


def _mean_loss(arrays: Mapping[str, np.ndarray]) -> float | None:
    """Return the mean loss over all documents' tokens; NaN where arrays do not fit together, None without any."""
    nats, tokens = (arrays.get(name) for name in _BY_DOCUMENT)
    if nats is None:
        return None
    if tokens is None or nats.shape != tokens.shape or not tokens.sum():
        return np.nan
    return float(nats.sum() / tokens.sum())
