"""Windows: documents' tokens cut to the model's length, and windows padded to batches.

Shapes: B windows of a batch, T tokens of its longest window, N scored tokens of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.lazy import torch

DEFAULT_WINDOW = 2048
PREFIX_POLICIES = {
    "document": (
        "each document begins with the prefix token; a later window begins with the last token of the one before, "
        "and the last window is filled up with tokens scored before"
    ),
    "window": (
        "each window begins with the prefix token, which a later window has before the last token of the one before, "
        "and the last window is filled up with tokens scored before"
    ),
}


@dataclass(frozen=True)
class Window:
    """A stretch of one document's tokens: all but the last are inputs, the last ``scored`` are predicted."""

    document: int
    tokens: np.ndarray
    scored: int
    start: int = 0
    """The place in the document of the first token that is predicted."""

    def __len__(self) -> int:
        """The number of tokens that go into the model."""
        return len(self.tokens) - 1

    @property
    def positions(self) -> np.ndarray:
        """How many inputs stand before the one that predicts each scored token, int64, shape [scored]."""
        return np.arange(len(self) - self.scored, len(self))


def rolling_windows(
    document: int, tokens: np.ndarray, prefix: int, length: int, *, policy: str = "document"
) -> Iterator[Window]:
    """Cut a document into windows of at most ``length`` inputs that predict each token exactly once.

    With the policy ``document`` the windows equal those of lm-eval's ``loglikelihood_rolling`` (context of one token,
    last window filled up). With ``window`` the prefix token stands before later windows too. It is one of the
    ``length`` inputs, so that a later window predicts one token less.

    Raises `LmsatError` for windows too short for the prefix token and a token to predict from.
    """
    length_of_later = most_scored(length, policy)
    start = 0
    while start < len(tokens):
        most = length_of_later if start else length
        stop = min(start + most, len(tokens))
        stretch = tokens[stop - most - 1 : stop] if start else tokens[:stop]
        if not start or policy == "window":
            stretch = np.concatenate([[prefix], stretch])
        yield Window(document=document, tokens=stretch, scored=stop - start, start=start)
        start = stop


def most_scored(length: int, policy: str) -> int:
    """Return how many tokens a later window of ``length`` inputs predicts at most. Raises `LmsatError` for none."""
    if policy != "window":
        return length
    if length < 2:
        raise LmsatError(
            f"max_length={length} leaves no room for the prefix token in every window: "
            "set it to at least 2, or the prefix to document"
        )
    return length - 1


def make_batches(windows: Sequence[Window], batch_tokens: int) -> list[list[Window]]:
    """Group windows of similar length so that a padded batch holds at most ``batch_tokens``; longest first.

    The batches do not depend on the number of processes: processes take turns at them. A window longer than
    ``batch_tokens`` is a batch of its own.
    """
    batches: list[list[Window]] = []
    for window in sorted(windows, key=len, reverse=True):
        if batches and (len(batches[-1]) + 1) * len(batches[-1][0]) <= batch_tokens:
            batches[-1].append(window)
        else:
            batches.append([window])
    return batches


@dataclass(frozen=True)
class PaddedBatch:
    """A batch as tensors. Padding is on the right, where no earlier position can see it."""

    inputs_BT: torch.Tensor
    scored_N: torch.Tensor
    """Which positions of the flattened [B · T] predict a scored token."""
    targets_N: torch.Tensor
    documents_N: torch.Tensor
    positions_N: torch.Tensor
    places_N: torch.Tensor
    """Index of each target in its document."""
    inputs_N: torch.Tensor
    """The token at each position that predicts one."""

    @classmethod
    def of(cls, windows: Sequence[Window]) -> PaddedBatch:
        """Pad a batch of windows with token 0, as lm-eval does; the tensors are on the CPU."""
        length = max(map(len, windows))
        inputs_BT = np.zeros((len(windows), length), dtype=np.int64)
        parts: list[tuple[np.ndarray, ...]] = []
        for row, window in enumerate(windows):
            inputs_BT[row, : len(window)] = window.tokens[:-1]
            positions = window.positions
            documents = np.full(window.scored, window.document)
            places = np.arange(window.start, window.start + window.scored)
            targets, inputs = window.tokens[-window.scored :], window.tokens[-window.scored - 1 : -1]
            parts.append((row * length + positions, targets, documents, positions, places, inputs))
        scored_N, targets_N, documents_N, positions_N, places_N, inputs_N = (
            torch.from_numpy(np.concatenate(column).astype(np.int64)) for column in zip(*parts, strict=True)
        )
        return cls(
            inputs_BT=torch.from_numpy(inputs_BT),
            scored_N=scored_N,
            targets_N=targets_N,
            documents_N=documents_N,
            positions_N=positions_N,
            places_N=places_N,
            inputs_N=inputs_N,
        )

    def to(self, device: torch.device) -> PaddedBatch:
        """Return the batch on a device. A GPU takes it while the CPU goes on, from memory that is not paged."""
        if device.type != "cuda":
            return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})
        moved = {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in vars(self).items()}
        return replace(self, **moved)
