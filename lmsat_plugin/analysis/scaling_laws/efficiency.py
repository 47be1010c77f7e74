"""Sample efficiency: the tokens and the compute that models of each size need to reach a loss.

Shapes: P checkpoints of one model.
"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.tables import check_nats, is_tidy, loss_of_results, numbers, table_of
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.variants import labelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from lmsat_plugin.results.tree import Results

logger = logging.getLogger(__name__)

FEWEST_SAVED = 0.1
"""The share of tokens that a doubling of the size has to save, by default, to count as a return."""


@dataclass(frozen=True)
class Reached:
    """What one model needs to reach one loss."""

    model: str
    n_params: float
    loss: float
    tokens: float | None
    """None if no checkpoint gets there."""
    low: float | None
    high: float | None
    """Tokens of the last checkpoint above the loss and of the first at it; None for no such checkpoint."""
    flops: float | None
    """Of the column ``flops``, else 6 · n_params · tokens."""
    next_model: str | None = None
    """The next size."""
    ratio: float | None = None
    """Tokens of the next size over these."""
    saved: float | None = None
    """Share of the tokens that a doubling of the size saves from here to the next size."""

    @property
    def at_most(self) -> bool:
        """Whether the first checkpoint is there already, so that fewer tokens may do."""
        return self.tokens is not None and self.low is None


@dataclass(frozen=True)
class BestSize:
    """Which of the sizes reaches a loss best."""

    loss: float
    compute_optimal: str | None
    """The model that gets there with the least compute; None if one alone does, or one at its first checkpoint."""
    at_edge: bool
    """Whether it is the smallest or largest that gets there, so that a size beyond may take still less."""
    diminishing_from: str | None
    """The model from which on each doubling of the size saves fewer tokens than asked; None if the last still does."""


@dataclass(frozen=True, eq=False)
class Efficiency:
    """Tokens and compute to reach losses, by size (Kaplan et al. 2020, Fig. 2 and Sec. 6)."""

    reached: tuple[Reached, ...]
    """By loss, as asked, then by size."""
    best: tuple[BestSize, ...]
    fewest_saved: float
    table: pd.DataFrame
    """The checkpoints: ``model, n_params, tokens, loss, flops``."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat efficiency --json`` prints it."""
        return {
            "fewest_saved": self.fewest_saved,
            "reached": [{**asdict(one), "at_most": one.at_most} for one in self.reached],
            "best": [asdict(one) for one in self.best],
        }


def sample_efficiency(
    data: Results | pd.DataFrame, losses: Sequence[float], fewest_saved: float = FEWEST_SAVED
) -> Efficiency:
    """Return what each model needs to reach each loss.

    The first crossing of the least loss so far, which is taken as linear in the logarithm of the tokens between
    neighbouring checkpoints: a loss that rises again, or a lucky checkpoint's neighbours, change nothing.
    Checkpoints at 0 tokens and, with a warning, models with a single one are left out.

    Args:
        data: Results with lmsat_loss, or a row for each checkpoint: ``model, n_params, tokens, loss`` in nats per token,
            and ``flops`` if known.
        losses: Nats per token.
        fewest_saved: The share of tokens that a doubling of the size has to save to count as a return.

    Raises:
        LmsatError: For columns that are missing or hold no such numbers, a model of several sizes, a loss that is
            none, and if no model reaches any of the losses.
    """
    if not losses or not all(0 < loss < math.inf for loss in losses):
        raise LmsatError(f"{list(losses)} are no losses to reach: give nats per token, above 0")
    if not 0 < fewest_saved < 1:
        raise LmsatError(f"{fewest_saved:g} is no share of tokens: give one between 0 and 1")
    table = table_of(data)
    table = _checkpoints(labelled(loss_of_results(data)) if is_tidy(table) else table)
    sizes = table.groupby("model", sort=False).n_params
    by_size = sizes.first().sort_values(kind="stable").index
    runs = {name: table[table.model == name].sort_values("tokens", kind="stable") for name in by_size}
    reached: list[Reached] = []
    best: list[BestSize] = []
    for loss in dict.fromkeys(losses):
        found = _compared([_crossing(str(name), run, loss) for name, run in runs.items()])
        reached += found
        best.append(_best(found, loss, fewest_saved))
    if all(one.tokens is None for one in reached):
        raise LmsatError(
            f"no model reaches a loss of {max(losses):g}: the least is {table.loss.min():.4g}, give one above it"
        )
    return Efficiency(reached=tuple(reached), best=tuple(best), fewest_saved=fewest_saved, table=table)


def _checkpoints(table: pd.DataFrame) -> pd.DataFrame:
    """Return the checkpoints of models that have several, checked, each with its FLOPs."""
    if "model" not in table.columns:
        raise LmsatError("the table has no column 'model': name the model of each checkpoint there")
    needed = ("n_params", "tokens", "loss")
    table = numbers(table, needed, optional=("flops",))
    table = numbers(table[table.tokens != 0], needed, positive=("n_params", "tokens", "flops"))
    check_nats(table)
    by_model = table.groupby("model")
    if (several := by_model.n_params.nunique()).max() > 1:
        raise LmsatError(
            f"{several.idxmax()} has {several.max()} values of n_params: give each size a model name of its own"
        )
    counts = by_model.tokens.transform("nunique")
    if (counts == 1).any():
        single = ", ".join(map(str, table.model[counts == 1].unique()))
        logger.warning("Left out, since one checkpoint does not say when a loss is reached: %s", single)
    table = table[counts > 1]
    if table.empty:
        raise LmsatError("no model has several checkpoints: add rows of the same model at other tokens")
    flops = 6 * table.n_params * table.tokens
    return table.assign(flops=table.flops.fillna(flops) if "flops" in table.columns else flops)


def _crossing(model: str, run: pd.DataFrame, loss: float) -> Reached:
    tokens_P, flops_P = run.tokens.to_numpy(), run.flops.to_numpy()
    least_P = np.minimum.accumulate(run.loss.to_numpy())
    n_params = float(run.n_params.iloc[0])
    after = int(np.searchsorted(-least_P, -loss))
    found = partial(Reached, model=model, n_params=n_params, loss=loss)
    if after == len(least_P):
        return found(tokens=None, low=float(tokens_P[-1]), high=None, flops=None)
    high = float(tokens_P[after])
    if after == 0:
        return found(tokens=high, low=None, high=high, flops=float(flops_P[0]))
    share = (least_P[after - 1] - loss) / (least_P[after - 1] - least_P[after])
    tokens, flops = (float(x[after - 1] ** (1 - share) * x[after] ** share) for x in (tokens_P, flops_P))
    return found(tokens=tokens, low=float(tokens_P[after - 1]), high=high, flops=flops)


def _compared(found: list[Reached]) -> list[Reached]:
    """Return models from the smallest on, each with what the next size saves."""
    compared = []
    for one in found:
        larger = [other for other in found if other.n_params > one.n_params]
        least = min((other.n_params for other in larger), default=None)
        rivals = [other for other in larger if other.n_params == least and _known(other)]
        if _known(one) and rivals:
            next_ = min(rivals, key=lambda other: other.tokens or math.inf)
            assert one.tokens is not None
            assert next_.tokens is not None
            ratio = next_.tokens / one.tokens
            saved = 1 - ratio ** (math.log(2) / math.log(next_.n_params / one.n_params))
            one = replace(one, next_model=next_.model, ratio=ratio, saved=saved)
        compared.append(one)
    return compared


def _known(one: Reached) -> bool:
    return one.tokens is not None and not one.at_most


def _best(found: list[Reached], loss: float, fewest_saved: float) -> BestSize:
    there = [one for one in found if one.flops is not None]
    optimal, at_edge = None, False
    if len(there) > 1 and not any(one.at_most for one in there):
        cheapest = min(there, key=lambda one: one.flops or math.inf)
        optimal = cheapest.model
        at_edge = cheapest.n_params in (there[0].n_params, there[-1].n_params)
    steps = [one for one in found if one.saved is not None]
    poor = next(
        (i for i in range(len(steps)) if all((one.saved or 0) < fewest_saved for one in steps[i:])), None
    )
    return BestSize(
        loss=loss,
        compute_optimal=optimal,
        at_edge=at_edge,
        diminishing_from=None if poor is None else steps[poor].model,
    )
