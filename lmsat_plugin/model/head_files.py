"""Files with an LM head of lower rank: its two factors, its rank, and whether it was trained or truncated.

Shapes: V rows, D width, R rank.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import check_file, replacing

if TYPE_CHECKING:
    import torch

LEFT, RIGHT = "lm_head.left", "lm_head.right"
"""The factors' names in a file: W = left · right, of shapes [V, R] and [R, D]."""

_DTYPES = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"},
    **{"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"},
    **{"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"},
}


@dataclass(frozen=True)
class RestrictedHead:
    """What an LM head of lower rank is."""

    rank: int
    kind: str
    """``trained``, or ``weighted``: truncated in the metric of the final states' second moment."""


def save_restricted_head(path: Path, left_VR: torch.Tensor, right_RD: torch.Tensor, details: dict[str, Any]) -> None:
    """Write a head's factors in float32. ``details`` say its ``kind`` and how it was made.

    Raises `LmsatError` for a file that cannot be written.
    """
    factors = {LEFT: left_VR, RIGHT: right_RD}
    tensors = {name: factor.to("cpu").float().contiguous() for name, factor in factors.items()}
    write_safetensors(path, tensors, {"lmsat": json.dumps({"rank": left_VR.shape[1], **details})})


def write_safetensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    read: Callable[[str], torch.Tensor] | None = None,
) -> None:
    """Write tensors of the CPU into a file of safetensors, so that it is there whole or not at all.

    safetensors' own function puts another file in the place of the one it is given: that one's lock is lost, and what
    a kill leaves of the other is known to nobody. It also takes all tensors at once, where ``read`` returns one after
    another with its data, and ``tensors`` may be without. Raises `LmsatError` for a file that cannot be written.
    """
    import torch

    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    # As safetensors does it: wide numbers first, so that all are aligned.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        if (dtype := _DTYPES.get(str(tensor.dtype).removeprefix("torch."))) is None:
            raise LmsatError(f"{name} is of the type {tensor.dtype}, which safetensors does not have: leave it out")
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in ordered:
            tensor = tensor if read is None else read(name)
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def without_data(file: Any, name: str) -> torch.Tensor:
    """Return the type and the shape of a tensor in an open file of safetensors, as a tensor on the meta device."""
    import torch

    piece = file.get_slice(name)
    found = next((dtype for dtype, code in _DTYPES.items() if code == piece.get_dtype()), None)
    if found is None:
        raise LmsatError(f"{name} is of the type {piece.get_dtype()}, which is not known here: convert it")
    return torch.empty(piece.get_shape(), dtype=getattr(torch, found), device="meta")


def load_factors(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a head's factors, [V, R] and [R, D]. Raises `LmsatError` for a file without them."""
    with _opened(path, "pt") as file:
        return file.get_tensor(LEFT), file.get_tensor(RIGHT)


def describe_head(path: Path) -> RestrictedHead:
    """Return what the head in a file is, for a file of any name. torch is not imported.

    Raises `LmsatError` for a file without a head.
    """
    with _opened(path, "np") as file:
        rank = file.get_slice(LEFT).get_shape()[1]
        details = json.loads((file.metadata() or {}).get("lmsat", "{}"))
    if not isinstance(details, dict):
        details = {}
    # Earlier files do not say their kind, but those of trained heads say how the training began.
    return RestrictedHead(rank=rank, kind=details.get("kind") or ("trained" if "init" in details else "weighted"))


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    try:
        check_file(path)
        with safe_open(path, framework=framework) as file:
            yield file
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise LmsatError(
            f"head={path} is not a file with a head of lmsat's ({first_sentence(error)}): "
            "give one that lmsat_rank_head saved with heads=FOLDER"
        ) from error
