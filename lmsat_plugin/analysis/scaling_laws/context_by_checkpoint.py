"""What a longer context gains, for each checkpoint of a tree of results (`find_context`)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from lmsat_plugin.analysis.input_tables import records
from lmsat_plugin.analysis.losses import loss_of_results
from lmsat_plugin.analysis.scaling_laws.context_gain import ContextGain, context_gain
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.tree import Results
from lmsat_plugin.results.variants import label

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointContext:
    """How the loss of one checkpoint falls with the position in the context."""

    model: str
    variant: str | None
    """What distinguishes this result from others of the model; None where nothing does."""
    revision: str | None
    step: int | None
    loss: float
    """Of all positions, nats per token."""
    gain: ContextGain

    @property
    def label(self) -> str:
        """The model's name for people."""
        return label(self.model, self.variant)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat context --json`` prints it."""
        checkpoint = {key: getattr(self, key) for key in ("model", "variant", "revision", "step", "loss")}
        return {**checkpoint, **self.gain.to_dict()}


def find_context(results: Results) -> list[CheckpointContext]:
    """Return the gain of context for each checkpoint, by model and step, from the arrays of lmsat_loss.

    Checkpoints whose arrays cannot be read are left out with a warning. Raises `LmsatError` if none can be read, and
    for losses on several texts.
    """
    contexts, skipped = [], []
    for row in records(loss_of_results(results)):
        try:
            gain = context_gain(results.arrays(row["path"], "lmsat_loss", "loss/"))
        except LmsatError as error:
            skipped.append(LmsatError(f"{results.files[row['path']].path}: {error}"))
            continue
        contexts.append(
            CheckpointContext(
                model=row["model"],
                variant=row["variant"],
                revision=row["revision"],
                step=row["step"],
                loss=row["loss"],
                gain=gain,
            )
        )
    if not contexts:
        raise skipped[0]
    for reason in skipped:
        logger.warning("Left out: %s", reason)
    return contexts
