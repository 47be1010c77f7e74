"""The columns of a leaderboard: titles, units, and which direction is better."""

from __future__ import annotations

from typing import NamedTuple

from lmsat_plugin.metrics import metric


class Column(NamedTuple):
    """One column; its standard errors stand in the rows under ``name`` with ``_stderr``."""

    name: str
    title: str
    about: str
    unit: str = ""
    higher_is_better: bool | None = None
    """None where neither direction is better."""

    @property
    def title_with_unit(self) -> str:
        """The title, and the unit in brackets."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


def _measured(name: str, title: str, about: str) -> Column:
    """Return the column of one of lmsat's metrics."""
    measured = metric(name)
    unit = measured.unit.replace(" per ", "/").replace("tokens", "token")
    return Column(name, title, about, unit=unit, higher_is_better=measured.higher_is_better)


COLUMNS = (
    Column(
        *("rank", "rank", "1 + the number of models that are significantly better; ties share a rank"),
        higher_is_better=False,
    ),
    Column("model", "model", "name, with what distinguishes it from other variants"),
    Column("checkpoint", "checkpoint", "revision of the last checkpoint, or its place where runs name it differently"),
    Column("runs", "runs", "how many runs of the model the row is the mean of, where it has several"),
    Column("n_params", "parameters", "all parameters"),
    Column("tokens", "tokens", "tokens trained on since the start, those of earlier stages included"),
    _measured("loss", "loss", "pretraining loss of the last checkpoint"),
    _measured("bits_per_byte", "bits per byte", "the same per byte of text"),
    Column("best_loss", "best loss", "the least loss of all checkpoints", unit="nats/token", higher_is_better=False),
    Column("best_step", "at step", "the step of the least loss"),
    Column("verdict", "saturates?", "verdict on saturation"),
    _measured("anisotropy_last", "anisotropy", "mean cosine of the last layer's states"),
    Column("head_capacity", "head capacity", "effective rank of the LM head / hidden size"),
    _measured("singular_entropy", "singular entropy", "KL(p‖u) of the LM head's squared spectrum"),
    Column("law_gap", "gap to the law", "(loss − L(N, D)) / L(N, D), final", unit="%", higher_is_better=False),
    Column(
        *("downstream", "downstream average", "mean score above chance: 0 at chance, 1 for a perfect score"),
        higher_is_better=True,
    ),
    Column("above_loss", "above its loss", "downstream above what the loss predicts", higher_is_better=True),
)
BY_NAME = {column.name: column for column in COLUMNS}
