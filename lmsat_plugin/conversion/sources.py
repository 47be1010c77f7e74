"""Which file or folder of a training's checkpoint holds the model's tensors, and what reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from lmsat_plugin.conversion.distributed import METADATA, SHARDS, DistributedCheckpoint
from lmsat_plugin.conversion.state_dicts import StateDictFile
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import kind_of
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.checkpoint_files import NO_MODEL, STATE_DICTS

_FIRST = ("model", "pytorch_model", "consolidated", "lit_model", "model_weights", "weights")
"""Of several files, those that hold the model."""


class TensorSource(Protocol):
    """The named tensors of a checkpoint."""

    format: str

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """All tensors by name, perhaps without data."""

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor with its data. Raises `LmsatError` where it cannot be read."""


def open_source(path: Path) -> TensorSource:
    """Return the tensors of a checkpoint in a file or a folder: torch.distributed.checkpoint's or a state dict's.

    Raises `LmsatError` for anything else, for a folder that leaves open which of several files is meant, and as
    `DistributedCheckpoint` and `StateDictFile`.
    """
    if kind_of(path) == "file":
        return StateDictFile(path)
    if kind_of(path) != "folder":
        raise LmsatError(f"{path} is no file and no folder: correct the path")
    folders = [path, *sorted(each for each in path.iterdir() if each.is_dir() and not NO_MODEL.search(each.name))]
    if sharded := [each for each in folders if (each / METADATA).is_file() or any(each.glob(SHARDS))]:
        return DistributedCheckpoint(_only(path, sharded))
    for folder in (path, *folders[1:]):
        files = [each for pattern in STATE_DICTS for each in folder.glob(pattern) if not NO_MODEL.search(each.name)]
        if files := [each for each in files if each.is_file()]:
            named = [each for each in files if each.stem in _FIRST]
            return StateDictFile(_only(path, named or sorted(files)))
    raise LmsatError(
        f"{path} holds neither a folder of torch.distributed.checkpoint nor a state dict ({', '.join(STATE_DICTS)}): "
        "give a command with `convert`"
    )


def _only(folder: Path, found: list[Path]) -> Path:
    # What lies in the folder itself comes before what lies in one of its folders.
    if len(found) > 1 and found[0] != folder:
        numbers = len({re.sub(r"\d+", "", each.name) for each in found}) == 1
        what = "parts of one model" if numbers else "one of them"
        raise LmsatError(
            f"{folder} holds {found[0].name}, {found[1].name} and so on, and it is open which holds the model: give "
            f"{'a command with `convert` that joins the ' + what if numbers else what}"
        )
    return found[0]
