"""The columns of a leaderboard: titles, units, and which direction is better."""

from __future__ import annotations

from dataclasses import dataclass

from lmsat_plugin.metrics import metric


@dataclass(frozen=True)
class Column:
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
    return Column(name=name, title=title, about=about, unit=unit, higher_is_better=measured.higher_is_better)


COLUMNS = (
    Column(
        name="rank",
        title="rank",
        about="1 + the number of models that are significantly better; ties share a rank",
        higher_is_better=False,
    ),
    Column(name="model", title="model", about="name, with what distinguishes it from other variants"),
    Column(name="checkpoint", title="checkpoint", about="revision of the last checkpoint"),
    Column(name="n_params", title="parameters", about="all parameters"),
    Column(name="tokens", title="tokens", about="tokens trained on"),
    _measured("loss", "loss", "pretraining loss of the last checkpoint"),
    _measured("bits_per_byte", "bits per byte", "the same per byte of text"),
    Column(
        name="best_loss",
        title="best loss",
        about="the least loss of all checkpoints",
        unit="nats/token",
        higher_is_better=False,
    ),
    Column(name="best_step", title="at step", about="the step of the least loss"),
    Column(name="verdict", title="saturates?", about="verdict on saturation"),
    _measured("anisotropy_last", "anisotropy", "mean cosine of the last layer's states"),
    Column(name="head_capacity", title="head capacity", about="effective rank of the LM head / hidden size"),
    _measured("singular_entropy", "singular entropy", "KL(p‖u) of the LM head's squared spectrum"),
    Column(
        name="law_gap",
        title="gap to the law",
        about="(loss − L(N, D)) / L(N, D), final",
        unit="%",
        higher_is_better=False,
    ),
    Column(
        name="downstream",
        title="downstream average",
        about="mean score above chance: 0 at chance, 1 for a perfect score",
        higher_is_better=True,
    ),
    Column(
        name="above_loss",
        title="above its loss",
        about="downstream above what the loss predicts",
        higher_is_better=True,
    ),
)
BY_NAME = {column.name: column for column in COLUMNS}
