"""What a tree of results says of the loss by position in the context, checkpoint by checkpoint."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from lmsat_plugin.analysis.scaling_laws.context_gain import ContextGain, context_gain
from lmsat_plugin.analysis.tables import loss_of_results
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.arrays import arrays_of
from lmsat_plugin.report.rank_results import file_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ContextOfCheckpoint:
    """One checkpoint."""

    model: str
    revision: str | None
    step: int | None
    loss: float
    """Of all positions."""
    gain: ContextGain

    def facts(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat context --json`` prints it."""
        own = {"model": self.model, "revision": self.revision, "step": self.step, "loss": self.loss}
        return {**own, **self.gain.facts()}


def find_context(table: pd.DataFrame, root: Path) -> list[ContextOfCheckpoint]:
    """Return what the arrays of lmsat_loss say; by model and step.

    ``table`` was read from ``root``, a folder of results or one file.

    Raises `LmsatError` if there are none that can be read; a few that cannot be are left out with a warning.
    """
    found, skipped = [], []
    for row in loss_of_results(table).to_dict("records"):
        file = file_of(row["path"], root)
        try:
            gain = context_gain(arrays_of(file, ("loss/",)))
        except LmsatError as error:
            skipped.append(LmsatError(f"{file}: {error}"))
            continue
        step = None if pd.isna(row["step"]) else int(row["step"])
        revision = None if pd.isna(row["revision"]) else str(row["revision"])
        found.append(ContextOfCheckpoint(row["model"], revision, step, row["loss"], gain))
    if not found:
        raise skipped[0]
    for reason in skipped:
        logger.warning("Left out: %s", reason)
    return found


def as_table(found: list[ContextOfCheckpoint]) -> pd.DataFrame:
    """Return a row for each checkpoint, without the arrays."""
    return pd.DataFrame(
        {key: value for key, value in one.facts().items() if not isinstance(value, list)} for one in found
    )


def draw_context(found: list[ContextOfCheckpoint], among: Iterable[str] = ()) -> Figure:
    """Return the figure of each model's last checkpoint, and of all with steps; ``among`` is for `looks_of`."""
    from lmsat_plugin.report.context_figure import context_figure

    by_model: dict[str, list[tuple[int | None, ContextGain]]] = {}
    for one in found:
        by_model.setdefault(one.model, []).append((one.step, one.gain))
    return context_figure(by_model, among)
