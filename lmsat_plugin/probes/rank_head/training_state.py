"""The file from which an interrupted training of heads continues."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import kind_of, remove_strays
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.head_files import write_safetensors

logger = logging.getLogger(__name__)

_SAVE_SECONDS = 60.0


class TrainedHead(Protocol):
    """A head in training."""

    left_VR: torch.Tensor
    diverged: bool


class Resumable(Protocol):
    """A training that can be interrupted and continued."""

    losses: list[list[float]]

    @property
    def heads(self) -> Sequence[TrainedHead]:
        """The heads, in the order of the losses."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all tensors that the training continues from."""

    def fits(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Return whether these are all tensors of such a training, in their shapes and types."""

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put these tensors back."""


class TrainingState:
    """The state of a training in one file, which is replaced from time to time."""

    def __init__(self, path: Path, synchronise: bool) -> None:
        self.path, self._synchronise = path, synchronise
        self._next = time.monotonic() + _SAVE_SECONDS

    def save(self, trainer: Resumable, rounds: int, last: bool) -> None:
        """Write the state after a number of rounds, unless it was written a moment ago and more rounds follow."""
        began = time.monotonic()
        if began < self._next and not last:
            return
        metadata = {"rounds": str(rounds), "diverged": "".join("01"[head.diverged] for head in trainer.heads)}
        tensors = {name: tensor.contiguous().cpu() for name, tensor in trainer.tensors().items()}
        tensors["losses"] = torch.tensor(trainer.losses, dtype=torch.float64)
        metadata["sha256"] = _digest(tensors, metadata)
        try:
            write_safetensors(self.path, tensors, metadata)
        except LmsatError as error:
            # The training goes on, but cannot be resumed.
            logger.warning("the state of the training is not kept: %s", error)
        # Saving takes at most a tenth of the time.
        self._next = time.monotonic() + max(_SAVE_SECONDS, 9 * (time.monotonic() - began))

    def load(self, trainer: Resumable) -> int:
        """Put the state back, if there is one; return the number of rounds that are done."""
        first = not self._synchronise or torch.distributed.get_rank() == 0
        device = trainer.heads[0].left_VR.device
        saved = self._read(trainer) if first else None
        layout: Any = None
        if saved is not None:
            rounds, diverged, tensors = saved
            tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
            layout = rounds, diverged, {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}
        if self._synchronise:
            received = [layout]
            torch.distributed.broadcast_object_list(received, src=0)
            layout = received[0]
        if layout is None:
            return 0
        rounds, diverged, shapes = layout
        if not first:
            tensors = {name: torch.empty(shape, dtype=t, device=device) for name, (shape, t) in shapes.items()}
        if self._synchronise:
            for tensor in tensors.values():
                torch.distributed.broadcast(tensor, src=0)
        trainer.losses = tensors.pop("losses").tolist()
        trainer.restore(tensors)
        for head, mark in zip(trainer.heads, diverged, strict=True):
            head.diverged = mark == "1"
        logger.warning("The training of the heads continues after %d steps", len(trainer.losses))
        return rounds

    def _read(self, trainer: Resumable) -> tuple[int, str, dict[str, torch.Tensor]] | None:
        """Return the rounds, which heads have diverged, and the tensors; remove a file that this training cannot use.

        A state of earlier versions has no digest, and is not used either.
        """
        remove_strays(self.path.parent)
        if kind_of(self.path) is None:
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            unusable = (
                None if metadata.pop("sha256", "") == _digest(tensors, metadata) else "it is not as it was written"
            )
        except (OSError, SafetensorError, ValueError) as error:
            unusable = f"it cannot be read: {first_sentence(error)}"
        if unusable is None and not _fits(trainer, tensors, metadata):
            unusable = "it is the state of another training"
        if unusable is None:
            return int(metadata["rounds"]), metadata["diverged"], tensors
        logger.warning("%s is removed, and the training begins anew (%s)", self.path, unusable)
        self.remove()
        return None

    def remove(self) -> None:
        """Remove the file of a training that is finished; one that stays is looked at again the next time."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _digest(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of a state: names, types, shapes and bytes of its tensors, and its metadata."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _fits(trainer: Resumable, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bool:
    """Return whether a state is one of this training: of its heads, in their shapes."""
    heads = len(trainer.heads)
    losses = tensors.get("losses", torch.empty(0))
    marks = metadata.get("diverged", "")
    whole = losses.ndim == 2 and losses.shape[1] == heads == len(marks) and set(marks) <= {"0", "1"}
    others = {name: tensor for name, tensor in tensors.items() if name != "losses"}
    return whole and metadata.get("rounds", "").isdigit() and trainer.fits(others)
