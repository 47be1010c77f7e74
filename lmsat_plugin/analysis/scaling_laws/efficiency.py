"""Sample efficiency: the tokens and the compute that models of each size need to reach a loss.

Shapes: P checkpoints of one model.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.given_numbers import check_number, check_share
from lmsat_plugin.analysis.input_tables import check_models, check_steps, is_tidy, numbers, table_of
from lmsat_plugin.analysis.losses import check_nats, check_one_tokenizer, loss_of_results, without_diverged
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.series import labelled
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

FEWEST_SAVED = 0.1
"""The default share of tokens below which the saving of a doubled size counts as diminishing."""
_SAME_RATIO = 0.15
"""How far apart the logarithms of two ratios of tokens to parameters may be that count as the same."""


@dataclass(frozen=True)
class Reached:
    """The tokens and the compute that one model needs to reach one loss."""

    model: str
    n_params: float
    loss: float
    tokens: float | None
    """None if no checkpoint reaches the loss."""
    low: float | None
    high: float | None
    """Tokens of the last checkpoint above the loss, and of the first one that reaches it; None without one."""
    flops: float | None
    """From the column ``flops``, else 6 · n_params · tokens."""
    tokens_per_parameter: float
    """Of the whole run: its last checkpoint's tokens over its parameters."""
    next_model: str | None = None
    """The run of the next larger size that it is compared with."""
    compared: str | None = None
    """How that was chosen: ``only runs`` of their sizes, ``same ratio`` of tokens to parameters over the whole run, or
    the ``frontier``, the runs of both sizes that need the fewest tokens."""
    ratio: float | None = None
    """Tokens that the next size needs over these."""
    saved: float | None = None
    """The share of the tokens that a doubling of the size saves between this size and the next."""

    @property
    def at_most(self) -> bool:
        """Whether the first checkpoint reaches the loss already, so that fewer tokens may suffice."""
        return self.tokens is not None and self.low is None


@dataclass(frozen=True)
class BestSize:
    """The size that reaches a loss with the least compute, and the size from which on a larger one saves little."""

    loss: float
    compute_optimal: str | None
    """The model that needs the least compute; None if only one reaches the loss, or one at its first checkpoint."""
    at_edge: bool
    """Whether that is the smallest or the largest size that reaches the loss, so that another may need less."""
    diminishing_from: str | None
    """The model from which on a doubled size saves less than ``fewest_saved``; None if the last doubling saves more."""


@dataclass(frozen=True, eq=False)
class Efficiency:
    """Tokens and compute to reach losses, by size (Kaplan et al. 2020, Fig. 2 and Sec. 6)."""

    reached: tuple[Reached, ...]
    """In the order of the losses asked for, and by size."""
    best: tuple[BestSize, ...]
    fewest_saved: float
    table: pd.DataFrame
    """The checkpoints: ``model, n_params, tokens, loss, flops``."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat efficiency --json`` prints it."""
        return {
            "fewest_saved": self.fewest_saved,
            "reached": [{**asdict(reached), "at_most": reached.at_most} for reached in self.reached],
            "best": [asdict(best) for best in self.best],
        }


def sample_efficiency(
    data: Results | pd.DataFrame, losses: Sequence[float], fewest_saved: float = FEWEST_SAVED
) -> Efficiency:
    """Return the tokens and the compute that each model needs to reach each loss.

    A model reaches a loss where its least loss so far, linear in ln(tokens) between neighbouring checkpoints, crosses
    it. Checkpoints at 0 tokens are left out, and, with a warning, models with a single checkpoint.

    Args:
        data: Results with lmsat_loss; or a table with a row for each checkpoint and the columns ``model, n_params,
            tokens, loss`` (nats per token) and, if known, ``flops``.
        losses: Nats per token.
        fewest_saved: The share of tokens below which the saving of a doubled size counts as diminishing.

    Raises:
        LmsatError: For missing columns or numbers, a model of several sizes, and losses not above 0 or never reached.
    """
    if not len(losses):
        raise LmsatError("there is no loss to reach: give some, in nats per token")
    for loss in losses:
        check_number("loss", loss, "give nats per token, above 0", least=0)
    check_share("fewest_saved", fewest_saved)
    table = table_of(data)
    table = _checkpoints(labelled(loss_of_results(data)) if is_tidy(table) else table)
    by_size = table.groupby("model", sort=False).n_params.first().sort_values(kind="stable").index
    runs = {name: table[table.model == name].sort_values("tokens", kind="stable") for name in by_size}
    by_loss = {loss: _compared([_crossing(str(name), run, loss) for name, run in runs.items()]) for loss in losses}
    reached = tuple(chain.from_iterable(by_loss.values()))
    best = tuple(_best(models, loss, fewest_saved) for loss, models in by_loss.items())
    if all(model.tokens is None for model in reached):
        raise LmsatError(
            f"no model reaches a loss of {max(losses):g}: the least is {table.loss.min():.4g}, give one above it"
        )
    return Efficiency(reached=reached, best=best, fewest_saved=fewest_saved, table=table)


def _checkpoints(table: pd.DataFrame) -> pd.DataFrame:
    """Return the checkpoints of models that have several, checked, with their FLOPs."""
    needed = ("n_params", "tokens", "loss")
    check_models(table, ("model", *needed))
    table, _ = without_diverged(table)
    table = numbers(table, needed, optional=("flops",))
    table = numbers(table[table.tokens != 0], needed, positive=("n_params", "tokens", "flops"))
    check_nats(table)
    check_one_tokenizer(table)
    check_steps(table)
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


@dataclass(frozen=True)
class Crossing:
    """Where the least loss so far of a run crosses a loss."""

    after: int
    """The first checkpoint that reaches it."""
    share: float
    """The share of the way to it from the one before, on a line in ln(tokens); 1 for the first checkpoint."""

    def at(self, x_P: np.ndarray) -> float:
        """Return the tokens, or the compute, of that place, from those of the P checkpoints."""
        before = x_P[max(0, self.after - 1)]
        return float(before ** (1 - self.share) * x_P[self.after] ** self.share)


def crossing_of(losses_P: np.ndarray, loss: float) -> Crossing | None:
    """Return where a run, its checkpoints in order, reaches a loss; None if it does not."""
    least_P = np.minimum.accumulate(losses_P)
    after = int(np.searchsorted(-least_P, -loss))
    if after == len(least_P):
        return None
    share = 1.0 if after == 0 else (least_P[after - 1] - loss) / (least_P[after - 1] - least_P[after])
    return Crossing(after, float(share))


def _crossing(model: str, run: pd.DataFrame, loss: float) -> Reached:
    tokens_P, flops_P = run.tokens.to_numpy(), run.flops.to_numpy()
    n_params = float(run.n_params.iloc[0])
    ratio = float(tokens_P[-1]) / n_params
    reached = partial(Reached, model=model, n_params=n_params, loss=loss, tokens_per_parameter=ratio)
    crossing = crossing_of(run.loss.to_numpy(), loss)
    if crossing is None:
        return reached(tokens=None, low=float(tokens_P[-1]), high=None, flops=None)
    tokens, flops = (crossing.at(x_P) for x_P in (tokens_P, flops_P))
    low = None if crossing.after == 0 else float(tokens_P[crossing.after - 1])
    return reached(tokens=tokens, low=low, high=float(tokens_P[crossing.after]), flops=flops)


def _compared(models: list[Reached]) -> list[Reached]:
    """Return the models, which are in the order of their sizes, each with what the next size saves.

    Of several runs of one size, those with the same ratio of tokens to parameters are compared; where there are none
    in the next size, only the best run is, with the best of the next size.
    """
    compared = []
    for model in models:
        peers = [other for other in models if other.n_params == model.n_params and _known(other)]
        larger = [other for other in models if other.n_params > model.n_params]
        least = min((other.n_params for other in larger), default=None)
        rivals = [other for other in larger if other.n_params == least and _known(other)]
        own, chosen, how = _known(model), None, "frontier"
        if own and rivals:
            alike = [other for other in rivals if _same_ratio(model, other)]
            several = len([other for other in models if other.n_params in (model.n_params, least)]) > 2
            if not several:
                chosen, how = rivals[0], "only runs"
            elif alike:
                chosen, how = min(alike, key=_needed), "same ratio"
            elif model is min(peers, key=_needed):
                chosen = min(rivals, key=_needed)
        if own and chosen is not None:
            ratio = _needed(chosen) / own
            saved = 1 - ratio ** (math.log(2) / math.log(chosen.n_params / model.n_params))
            model = replace(model, next_model=chosen.model, compared=how, ratio=ratio, saved=saved)
        compared.append(model)
    return compared


def _needed(model: Reached) -> float:
    return _known(model) or math.inf


def _same_ratio(one: Reached, other: Reached) -> bool:
    return abs(math.log(one.tokens_per_parameter / other.tokens_per_parameter)) < _SAME_RATIO


def _known(model: Reached) -> float | None:
    """Return the tokens that a model needs; None where it does not reach the loss, or fewer may suffice."""
    return None if model.at_most else model.tokens


def _best(models: list[Reached], loss: float, fewest_saved: float) -> BestSize:
    there = [model for model in models if model.flops is not None]
    optimal, at_edge = None, False
    if len(there) > 1 and not any(model.at_most for model in there):
        cheapest = min(there, key=lambda model: model.flops or math.inf)
        optimal = cheapest.model
        at_edge = cheapest.n_params in (there[0].n_params, there[-1].n_params)
    steps = [model for model in models if model.saved is not None]
    poor = next((i for i in range(len(steps)) if all((model.saved or 0) < fewest_saved for model in steps[i:])), None)
    return BestSize(
        loss=loss,
        compute_optimal=optimal,
        at_edge=at_edge,
        diminishing_from=None if poor is None else steps[poor].model,
    )
