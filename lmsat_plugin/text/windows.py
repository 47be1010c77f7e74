"""Windows: documents' tokens cut to the model's length, and windows padded to batches.

Shapes: B windows of a batch, T tokens of its longest window, N scored tokens of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

DEFAULT_WINDOW = 2048
PREFIX_POLICY = (
    "each document begins with the prefix token; a later window begins with the last token of the one before, "
    "and the last window is filled up with tokens scored before"
)


@dataclass(frozen=True)
class Window:
    """A stretch of one document's tokens: all but the last are inputs, the last ``scored`` are predicted."""

    document: int
    tokens: np.ndarray
    scored: int

    def __len__(self) -> int:
        """The number of tokens that go into the model."""
        return len(self.tokens) - 1


def rolling_windows(document: int, tokens: np.ndarray, prefix: int, length: int) -> Iterator[Window]:
    """Cut a document into windows of at most ``length`` inputs that predict each token exactly once.

    The windows equal those of lm-eval's ``loglikelihood_rolling`` (context of one token, last window filled up).
    """
    for start in range(0, len(tokens), length):
        stop = min(start + length, len(tokens))
        stretch = np.concatenate([[prefix], tokens[:stop]]) if start == 0 else tokens[stop - length - 1 : stop]
        yield Window(document=document, tokens=stretch, scored=stop - start)


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
    """A batch as tensors on the CPU. Padding is on the right, where no earlier position can see it."""

    inputs_BT: torch.Tensor
    scored_N: torch.Tensor
    """Which positions of the flattened [B · T] predict a scored token."""
    targets_N: torch.Tensor
    documents_N: torch.Tensor
    positions_N: torch.Tensor

    @classmethod
    def of(cls, windows: Sequence[Window]) -> PaddedBatch:
        """Pad a batch of windows with token 0, as lm-eval does."""
        length = max(map(len, windows))
        inputs_BT = np.zeros((len(windows), length), dtype=np.int64)
        parts: list[tuple[np.ndarray, ...]] = []
        for row, window in enumerate(windows):
            inputs_BT[row, : len(window)] = window.tokens[:-1]
            positions = np.arange(len(window) - window.scored, len(window))
            documents = np.full(window.scored, window.document)
            parts.append((row * length + positions, window.tokens[-window.scored :], documents, positions))
        scored_N, targets_N, documents_N, positions_N = (
            torch.from_numpy(np.concatenate(column).astype(np.int64)) for column in zip(*parts, strict=True)
        )
        return cls(
            inputs_BT=torch.from_numpy(inputs_BT),
            scored_N=scored_N,
            targets_N=targets_N,
            documents_N=documents_N,
            positions_N=positions_N,
        )
