"""Average the weights of checkpoints, tensor by tensor from their files, in float64, rounded once to float32."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lmsat_plugin.conversion.folder import copy_config, making
from lmsat_plugin.conversion.state_dicts import StateDictFile
from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import check_file, read_file
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.checkpoint_files import weight_paths
from lmsat_plugin.model.head_files import without_data, write_safetensors

# So many numbers of each part are added at once, so that the sums stay in the processor's cache.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class _Weights:
    """The tensors of a checkpoint, which are read as they are asked for."""

    name: str
    like: Mapping[str, torch.Tensor]
    """Names, types and shapes, without data."""
    read: Callable[[str], torch.Tensor]


def average_checkpoints(folders: Sequence[Path], out: Path) -> None:
    """Write the mean of checkpoints for transformers to a new folder, ``out``: there whole or not at all.

    The sum over the checkpoints is taken in float64, divided, and rounded once to float32. Configuration, tokenizer
    and numbers that are no floats are those of the last. At most one tensor is in memory besides what the system keeps
    of files.

    Raises `LmsatError` for adapters, quantised weights, tensors of different names or shapes, and broken files.
    """

    def add(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        total = parts[0].double()
        for part in parts[1:]:
            total += part
        return total.div_(len(parts))

    with ExitStack() as stack:
        weights = _open_all(stack, folders)
        _write(out, folders[-1], weights, lambda name: _blockwise(add, [each.read(name) for each in weights]))


def move_average(state: Path | None, folders: Sequence[Path], *, decay: float, out: Path, new_state: Path) -> None:
    """Write an exponential moving average e_t = d e_(t-1) + (1 - d) w_t, d the decay, as `average_checkpoints` does.

    Args:
        state: The file with e_(t-1) in float64, which this function wrote; None to begin with e_0 = w_0.
        folders: The checkpoints that follow it, in order.
        decay: d, between 0 and 1.
        out: The new folder, with e_t in float32.
        new_state: Where to write e_t in float64.
    """

    def move(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        total = parts[0].double()
        for part in parts[1:]:
            total.mul_(decay).add_(part.double(), alpha=1 - decay)
        return total

    with ExitStack() as stack:
        weights = _open_all(stack, folders)
        before = [] if state is None else [_safetensors(stack, "the average before", [state])]
        _check_shapes([*before, weights[-1]])
        like = {name: _as_type(tensor, torch.float64) for name, tensor in weights[-1].like.items()}

        def read(name: str) -> torch.Tensor:
            parts = [each.read(name) for each in (*before, *weights)]
            return _blockwise(move, parts, torch.float64)

        write_safetensors(new_state, like, {}, read=read)
        moved = _safetensors(stack, str(new_state), [new_state])
        _write(out, folders[-1], weights, lambda name: _rounded(moved.read(name)))


def _open_all(stack: ExitStack, folders: Sequence[Path]) -> list[_Weights]:
    weights = [_open(stack, folder) for folder in folders]
    _check_shapes(weights)
    return weights


def _check_shapes(weights: Sequence[_Weights]) -> None:
    last = weights[-1]
    for each in weights[:-1]:
        for name in sorted(each.like.keys() | last.like.keys()):
            mine, its = (found.like.get(name) for found in (each, last))
            if mine is None or its is None or mine.shape != its.shape:
                said = [f"{list(t.shape)} in {w.name}" for t, w in ((mine, each), (its, last)) if t is not None]
                what = " and ".join(said) if len(said) > 1 else f"only {said[0]}"
                raise LmsatError(f"{name} is {what}: average checkpoints of one architecture")


def _open(stack: ExitStack, folder: Path) -> _Weights:
    if (folder / "adapter_config.json").is_file():
        raise LmsatError(f"{folder} is an adapter: average whole models, such as those that merging writes")
    try:
        config = json.loads(read_file(folder / "config.json"))
    except (OSError, ValueError) as error:
        raise LmsatError(f"{folder / 'config.json'} cannot be read ({first_sentence(error)}): copy it again") from error
    if isinstance(config, dict) and config.get("quantization_config"):
        raise LmsatError(f"{folder} is quantised: average the weights that it was quantised from")
    paths = weight_paths(folder)
    if all(path.suffix == ".safetensors" for path in paths):
        return _safetensors(stack, str(folder), paths)
    tensors: dict[str, torch.Tensor] = {}
    for path in paths:
        tensors |= StateDictFile(path).tensors
    return _Weights(str(folder), tensors, tensors.__getitem__)


def _safetensors(stack: ExitStack, name: str, paths: Sequence[Path]) -> _Weights:
    files: dict[str, Any] = {}
    like: dict[str, torch.Tensor] = {}
    for path in paths:
        try:
            check_file(path)
            file = stack.enter_context(safe_open(path, framework="pt"))
            for key in file.keys():  # noqa: SIM118
                files[key], like[key] = file, without_data(file, key)
        except (OSError, SafetensorError) as error:
            raise LmsatError(f"{path} is cut short or broken ({first_sentence(error)}): copy it again") from error
    return _Weights(name, like, lambda key: files[key].get_tensor(key))


def _write(out: Path, config: Path, weights: Sequence[_Weights], read: Callable[[str], torch.Tensor]) -> None:
    like = {name: _as_type(tensor, torch.float32) for name, tensor in weights[-1].like.items()}
    with making(out) as folder:
        copy_config(config, folder, dtype=torch.float32)
        write_safetensors(folder / "model.safetensors", like, {"format": "pt"}, read=read)


def _blockwise(
    combine: Callable[[Sequence[torch.Tensor]], torch.Tensor],
    parts: Sequence[torch.Tensor],
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Combine tensors a block at a time, into float32 by default; of numbers that are no floats, return the last."""
    last = parts[-1]
    if not last.is_floating_point():
        return last
    combined = torch.empty(last.shape, dtype=dtype or torch.float32)
    out, flat = combined.view(-1), [part.reshape(-1) for part in parts]
    for begin in range(0, len(out), _CHUNK):
        out[begin : begin + _CHUNK] = combine([part[begin : begin + _CHUNK] for part in flat])
    return combined


def _rounded(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _as_type(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=dtype if tensor.is_floating_point() else tensor.dtype, device="meta")
