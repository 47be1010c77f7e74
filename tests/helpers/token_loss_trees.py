"""Results of lmsat_loss with the loss of every token, of runs that never were."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from compared_results import write_losses
from result_trees import save_arrays

if TYPE_CHECKING:
    from pathlib import Path

WINDOW = 7


@dataclass
class MadeText:
    """A text of a few documents, whose windows have seven tokens."""

    lengths_M: np.ndarray = field(default_factory=lambda: np.array([5, 20, 7, 1]))
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.ids_N = np.minimum(rng.geometric(0.2, self.lengths_M.sum()), 12).astype(np.int32)
        # Of each document the first window has the prefix token before it; the last one is filled up.
        self.positions_N = np.concatenate([self._positions(int(length)) for length in self.lengths_M])

    @staticmethod
    def _positions(length: int) -> list[int]:
        return [
            place if place < WINDOW else WINDOW - (min((place // WINDOW + 1) * WINDOW, length) - place)
            for place in range(length)
        ]

    def arrays(self, losses_N: np.ndarray, *, tokens: bool = True) -> dict[str, np.ndarray]:
        """Return the arrays of lmsat_loss."""
        ends = np.cumsum(self.lengths_M)[:-1]
        sums_P, tokens_P = np.bincount(self.positions_N, losses_N), np.bincount(self.positions_N)
        return {
            "loss/by_document": np.array([part.sum() for part in np.split(losses_N, ends)]),
            "loss/by_document_tokens": self.lengths_M,
            "loss/by_position": sums_P / tokens_P,
            "loss/by_position_tokens": tokens_P,
            **({"loss/by_token": losses_N.astype(np.float32), "loss/by_token_ids": self.ids_N} if tokens else {}),
        }

    def write(self, root: Path, step: int, losses_N: np.ndarray, *, tokens: bool = True, **more: Any) -> Path:
        """Write the result of one checkpoint."""
        arrays = self.arrays(losses_N, tokens=tokens)
        corpus = {"window": WINDOW, **more.pop("corpus", {})}
        model = more.pop("model", "m")
        path = write_losses(root, model, step, arrays["loss/by_document"], self.lengths_M, corpus=corpus, **more)
        save_arrays(path, arrays)
        return path


def write_addition(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write beside a result what was measured later: arrays, and no value."""
    data = json.loads(path.read_text("utf-8"))
    data["results"] = {"lmsat_loss": {"alias": "lmsat_loss"}}
    data["date"] += 1
    later = path.with_name("results_2026-01-02T00-00-00.000000.json")
    later.write_text(json.dumps(data), "utf-8")
    save_arrays(later, arrays)
    return later
