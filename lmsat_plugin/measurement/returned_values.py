"""What a probe may return: numbers, arrays and JSON; anything else is an error before anything is written."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.outside_text import shortened
from lmsat_plugin.probe import Measurement
from lmsat_plugin.results.json_values import clean

_KINDS_OF_ARRAYS = "biuf"
_MOST_BYTES = 8
"""Bytes of a number in an array: safetensors has no longer ones."""
_MOST_LETTERS = 200
_NAMES_OF_LM_EVAL = {"name", "alias", "sample_len", "sample_count"}
"""Keys in lm-eval's results that are not metrics."""


def checked(probe: str, returned: Any) -> Measurement:
    """Return a probe's measurement with plain numbers, NumPy arrays, and details that JSON can hold.

    Scalars of torch and NumPy become floats, tensors become arrays. A metric may be None where
    ``details["reasons"]`` says why, by the metric's name.

    Raises `LmsatError` that names the probe and the metric, the array or the detail that is none of these.
    """
    if not isinstance(returned, Measurement):
        raise _wrong(probe, "", returned, "a Measurement(metrics, arrays, details)")
    for part, values in (("metrics", returned.metrics), ("arrays", returned.arrays), ("details", returned.details)):
        if not isinstance(values, Mapping):
            raise _wrong(probe, f" as {part}", values, "a dict from names to values")
    details = _plain_details(probe, returned.details)
    reasons = details.get("reasons")
    reasons = reasons if isinstance(reasons, dict) else {}
    metrics = {}
    for name, value in returned.metrics.items():
        _check_name(probe, name, returned.metrics)
        metrics[name] = None if value is None and _is_reason(reasons.get(name)) else _number(probe, name, value)
    return Measurement(metrics, {name: _array(probe, name, value) for name, value in returned.arrays.items()}, details)


def _check_name(probe: str, name: Any, names: Collection[Any]) -> None:
    # lm-eval writes a metric as "name,filter".
    is_clear = isinstance(name, str) and name.strip() and name.isprintable() and "," not in name
    is_clear = is_clear and len(name) <= _MOST_LETTERS
    if not is_clear or name in _NAMES_OF_LM_EVAL:
        raise LmsatError(
            f"the probe '{probe}' calls a metric {_shown(name)}: give it a name of its own, of at most "
            f"{_MOST_LETTERS} letters, without a comma or a control character"
        )
    if name.endswith("_stderr") and name.removesuffix("_stderr") not in names:
        raise LmsatError(f"the probe '{probe}' returned {name}, a standard error, without its metric: return both")


def _names_array(name: Any) -> bool:
    """Return whether safetensors can write a name."""
    if not isinstance(name, str) or name in ("", "__metadata__"):
        return False
    return clean(name) == name and len(name) <= _MOST_LETTERS


def _is_reason(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip())


def _number(probe: str, name: str, value: Any) -> float:
    expected = "a number, or None with its reason in details['reasons']"
    scalar = value
    try:
        if isinstance(value, torch.Tensor | np.ndarray | np.generic) and value.ndim == 0:
            scalar = value.item()
        if isinstance(scalar, int | float) and not isinstance(scalar, bool):
            # A whole number of Python's own, such as a count, stays whole.
            number = float(scalar)
            return scalar if type(value) is int else number
    except (RuntimeError, OverflowError):
        pass
    raise _wrong(probe, f" as the metric '{name}'", value, expected)


def _array(probe: str, name: Any, value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        try:
            kept = value.detach().to("cpu", torch.float32 if value.dtype == torch.bfloat16 else value.dtype)
            value = kept.resolve_conj().resolve_neg().numpy()
        except (NotImplementedError, RuntimeError, TypeError):
            pass
    numeric = isinstance(value, np.ndarray | np.generic) and value.dtype.kind in _KINDS_OF_ARRAYS
    # What is masked would be there again, as if it were measured.
    numeric &= not isinstance(value, np.ma.MaskedArray)
    if not _names_array(name):
        raise LmsatError(
            f"the probe '{probe}' calls an array {_shown(name)}: give it a name of its own, of at most "
            f"{_MOST_LETTERS} plain letters"
        )
    if not numeric or value.dtype.itemsize > _MOST_BYTES:
        raise _wrong(probe, f" as the array '{name}'", value, "a NumPy array of numbers of at most 64 bits")
    return np.asarray(value).astype(value.dtype.newbyteorder("="), copy=False)


def _plain_details(probe: str, details: Mapping[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        if isinstance(value, torch.Tensor) and value.ndim == 0:
            return value.item()
        raise TypeError(f"{type(value).__name__} is not JSON")

    try:
        return json.loads(json.dumps(dict(details), default=plain))
    except (TypeError, ValueError, RecursionError, RuntimeError) as error:
        raise LmsatError(
            f"the probe '{probe}' returned details that cannot be written ({first_sentence(error)}): "
            "give numbers, text, lists and dicts"
        ) from error


def _wrong(probe: str, where: str, value: Any, expected: str) -> LmsatError:
    kind = type(value).__name__
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = f"{kind} of shape {list(value.shape)} and type {value.dtype}"
    elif isinstance(value, str | bool | int | None):
        kind = f"{kind} {_shown(value)}" if value is not None else "None"
    return LmsatError(f"the probe '{probe}' returned {kind}{where}: return {expected}")


def _shown(value: Any) -> str:
    return repr(value[:40]) if isinstance(value, str) else shortened(value)[:40]
