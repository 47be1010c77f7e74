"""The losses of a checkpoint by token, document and position, wherever a tree holds them.

Shapes: N tokens of the text in the order of its documents, P positions, M documents.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lmsat_plugin.analysis.comparison.measured import Measured
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.array_files import ArraysError
from lmsat_plugin.results.json_values import as_dict, as_integer, as_text
from lmsat_plugin.results.reading import TaskResult
from lmsat_plugin.results.tree import Results
from lmsat_plugin.text.frequencies import thirds_of_mass, token_counts
from lmsat_plugin.text.windows import PREFIX_POLICIES, rolling_windows

logger = logging.getLogger(__name__)

TASK = "lmsat_loss"
_MEASURE = "sweep over lmsat_loss with metadata: {token_losses: true} in the configuration"
_AGAIN = "measure them again, with --force"
_WANTED = ("loss/by_token", "loss/by_document", "loss/by_position")
_OF_PLACE = {"folder", "subfolder"}
_SAME = 1e-5
"""How far the mean of single precision losses may lie from the loss, as a share."""


@dataclass(frozen=True, eq=False)
class CheckpointLosses:
    """What is known of the losses of one checkpoint."""

    at: float
    revision: str
    loss: float
    """Nats per token."""
    measured: Measured
    arrays: Mapping[str, np.ndarray]
    """Of lmsat_loss, without ``loss/`` in their names; empty where there are none."""
    metrics: Mapping[str, float]
    """Of lmsat_loss."""
    reason: str | None
    """Why there are no losses of single tokens; None where there are."""

    @cached_property
    def thirds_N(self) -> np.ndarray | None:
        """Of each token, the third of the text by frequency: 0 frequent, 1 medium, 2 rare; None where unknown."""
        ids_N = self.arrays.get("by_token_ids")
        return None if ids_N is None else thirds_of_mass(token_counts([ids_N]))[ids_N]

    @cached_property
    def positions_N(self) -> np.ndarray | None:
        """Of each token, how many tokens of context it had; None where unknown."""
        corpus = as_dict(self.measured.notes.get("corpus"))
        window, policy = as_integer(corpus.get("window")), as_text(corpus.get("prefix"))
        lengths_M = self.arrays.get("by_document_tokens")
        if window is None or policy not in PREFIX_POLICIES or lengths_M is None:
            return None
        windows = (
            window_
            for length in lengths_M.tolist()
            for window_ in rolling_windows(0, np.zeros(length, np.int32), 0, window, policy=policy)
        )
        return np.concatenate([one.positions for one in windows])


class LossFiles:
    """The results of lmsat_loss in a tree, by the checkpoint and the settings that they are of."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self._by_path: dict[str, TaskResult] = {}
        self._alike: defaultdict[Any, list[TaskResult]] = defaultdict(list)
        for task in results.tasks:
            if task.task == TASK:
                self._by_path[task.origin.path] = task
                self._alike[self._key(task)].append(task)
        for tasks in self._alike.values():
            tasks.sort(key=lambda task: -(task.origin.date or 0))

    def _key(self, task: TaskResult) -> Any:
        progress = self.results.places[task.origin.path].progress
        of_model = frozenset(item for item in task.model_settings.items() if item[0] not in _OF_PLACE)
        of_text = frozenset(task.corpus_settings.items())
        return task.origin.model, task.origin.revision, progress.run, progress.stage, task.corpus, of_model, of_text

    def read(self, path: str, at: float, loss: float) -> CheckpointLosses:
        """Return the losses of the checkpoint whose loss lies in the file ``path`` of the table.

        Arrays and metrics that were measured later lie in files of their own. Of equal ones the newest is taken.
        """
        import pandas as pd

        task = self._by_path[path]
        arrays: dict[str, np.ndarray] = {}
        metrics: dict[str, float] = {}
        reasons = []
        for other in [task, *(one for one in self._alike[self._key(task)] if one is not task)]:
            for name, _, value, _, _ in other.metrics:
                metrics.setdefault(name, value)
            try:
                found = self.results.arrays(other.origin.path, TASK, *_WANTED)
            except ArraysError as error:
                logger.warning("%s", error)
                reasons.append(str(error))
                continue
            except LmsatError as error:
                reasons.append(str(error))
                continue
            arrays = {**{name.removeprefix("loss/"): array for name, array in found.items()}, **arrays}
        reason = _fault(arrays, loss)
        if "by_token" in arrays and reason is not None:
            logger.warning("%s: %s", path, reason)
        if reason is not None:
            arrays = {name: array for name, array in arrays.items() if not name.startswith("by_token")}
        return CheckpointLosses(
            at=at,
            revision=task.origin.revision,
            loss=loss,
            measured=Measured(self.results, task, pd.DataFrame()),
            arrays=arrays,
            metrics=metrics,
            reason=reasons[0] if reason is not None and not arrays and reasons else reason,
        )


def _fault(arrays: Mapping[str, np.ndarray], loss: float) -> str | None:
    """Return why the losses of single tokens cannot be used; None where they can."""
    losses_N = arrays.get("by_token")
    if losses_N is None:
        return f"the results hold no array by_token: {_MEASURE}"
    mean = float(losses_N.mean(dtype=np.float64)) if losses_N.size else np.nan
    if not abs(mean - loss) <= _SAME * abs(loss):
        return f"the mean of by_token is {mean:.7g} and the loss is {loss:.7g}: {_AGAIN}"
    lengths_M, ids_N = arrays.get("by_document_tokens"), arrays.get("by_token_ids")
    if (lengths_M is not None and lengths_M.sum() != losses_N.size) or (
        ids_N is not None and ids_N.shape != losses_N.shape
    ):
        return f"the array by_token has {losses_N.size:,} entries, which are not those of the text: {_AGAIN}"
    return None
