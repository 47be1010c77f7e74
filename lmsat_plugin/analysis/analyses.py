"""Class `Analyses`: all analyses of one tree of results, each made when it is first asked for, for pages and ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
import pandas as pd

from lmsat_plugin.analysis.checkpoint_values import Sizes, evenly, last_of, sizes_of, spread, values_of
from lmsat_plugin.analysis.comparison import PairComparison, compare
from lmsat_plugin.analysis.emergence import Emergence, find_emergence
from lmsat_plugin.analysis.losses import loss_of_results
from lmsat_plugin.analysis.rank_needed import CheckpointRanks, find_rank_needed
from lmsat_plugin.analysis.saturation import Saturation, find_saturation
from lmsat_plugin.analysis.saturation.events import Events, find_events
from lmsat_plugin.analysis.scaling_laws import FittedLaw, fit
from lmsat_plugin.analysis.scaling_laws.context_gain import CheckpointContext, find_context
from lmsat_plugin.analysis.scaling_laws.isoflops import IsoFlops, fit_isoflops
from lmsat_plugin.analysis.scaling_laws.run_curves import LEAST_FOR_CURVE, RunCurve, fit_curves
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.array_files import ArraysError
from lmsat_plugin.results.series import labelled
from lmsat_plugin.results.tree import Results

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CONTEXTS, _CONTEXT_MODELS = 8, 8
"""How many checkpoints of a model, and how many models, have their losses by position analysed: a fit takes long."""
_CURVE_MODELS = 9
"""How many learning curves are drawn: as many as fit on a page."""
_HOFFMANN_DATA = {"E": 1.69, "B": 410.7, "beta": 0.28}
"""Hoffmann et al. 2022 as printed; Godey et al. 2024 fit A and alpha beside them (Fig. 1b)."""


@dataclass(frozen=True, eq=False)
class Analyses:
    """All analyses of results on one text. An analysis that the results do not allow is empty; `missing` says why."""

    results: Results
    """On one text."""
    everything: Results
    """The results before one text was chosen."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why an analysis is empty, one sentence by the analysis' name."""

    @classmethod
    def of(cls, results: Results, corpora: Sequence[str] | None = None, variant: str | None = None) -> Analyses:
        """Return the analyses of results on one corpus, and of one variant.

        Raises `LmsatError` for a corpus or a variant that is not there, and for several texts if none is chosen.
        """
        chosen = results.select(corpora, variant)
        chosen.check_one_text()
        return cls(results=chosen, everything=results)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The table of values, with each series as a model of its own (`labelled`)."""
        return labelled(self.results.series)

    def _try(self, name: str, find: Callable[[], list[T]]) -> list[T]:
        try:
            return find()
        except LmsatError as error:
            self.missing[name] = str(error)
            return []

    @cached_property
    def sizes(self) -> Sizes:
        """The number of parameters of each model, from small to large."""
        return sizes_of(self.table)

    @cached_property
    def group_sizes(self) -> Sizes:
        """The same, where the runs of one model, replicates, count as one."""
        return sizes_of(self.table.assign(model=self.table.group))

    @cached_property
    def saturation(self) -> list[Saturation]:
        """The verdicts by lmsat_loss, or without it by one metric of each task (`judged_scores`)."""
        return self._try("saturation", lambda: find_saturation(self.results))

    @cached_property
    def events(self) -> Events:
        """The turns and jumps of all metrics of each run; without runs where verdicts are by several metrics."""
        return find_events(self.results, self.saturation)

    @cached_property
    def diverged(self) -> set[str]:
        """The models whose last losses are not finite: what came before is no final loss."""
        return {result.label for result in self.saturation if result.verdict == "diverged" and result.metric == "loss"}

    @cached_property
    def emergence(self) -> list[Emergence]:
        """The emergence of each task and metric."""
        return self._try("emergence", lambda: find_emergence(self.results))

    @cached_property
    def law(self) -> FittedLaw | None:
        """Chinchilla's law, fitted to the final checkpoints of models larger than all that saturate; None without one.

        Models that have all seen the same number of tokens do not show the data's term; then it is `_HOFFMANN_DATA`.
        """

        def find() -> list[FittedLaw]:
            finals = self.final_losses(larger=True)
            if finals.empty:
                raise LmsatError("a law is fitted to models larger than all that saturate, and there is none")
            return [fit("chinchilla", finals, _HOFFMANN_DATA if finals.tokens.nunique() == 1 else None)]

        laws = self._try("law", find)
        return laws[0] if laws else None

    @cached_property
    def transfer(self) -> dict[str, FittedLaw]:
        """The line between the losses on the chosen corpus and on each other corpus, by that corpus' name."""
        chosen = set(self.results.table.corpus.dropna())
        others = sorted(set(self.everything.table.corpus.dropna()) - chosen)

        def line_to(corpus: str) -> list[tuple[str, FittedLaw]]:
            return [(corpus, fit("transfer", self.everything.select([*chosen, corpus])))]

        return dict(pair for name in others for pair in self._try(f"transfer to {name}", partial(line_to, name)))

    @cached_property
    def comparison(self) -> list[PairComparison]:
        """The best model against the next best by their last losses; without lmsat_loss, the two largest.

        Empty where there are not two.
        """

        def find() -> list[PairComparison]:
            sizes = list(self.group_sizes)
            with suppress(LmsatError):
                losses = self.final_losses()
                sizes = list(losses.groupby("group").loss.mean().sort_values(ascending=False, kind="stable").index)
            if len(sizes) < 2:
                return []
            return list(compare(*((self.results, str(name)) for name in sizes[-2:])).pairs)

        return self._try("comparison", find)

    def final_losses(self, larger: bool = False) -> pd.DataFrame:
        """Return lmsat_loss at each model's last checkpoint, or only of models larger than all that saturate.

        Models that diverged are left out.

        The columns are those of `loss_of_results`. Raises `LmsatError` if there is no lmsat_loss.
        """
        last = last_of(labelled(loss_of_results(self.results)))
        last = last[np.isfinite(last.loss)]
        if larger:
            saturated = [model.label for model in self.saturation if model.verdict == "saturates"]
            largest = last.n_params[last.model.isin(saturated)].astype("float64").max()
            last = last[~(last.n_params <= largest)]
        return last.reset_index(drop=True)

    def _some(self, task: str, most: int) -> Results:
        """Return the results with at most ``most`` checkpoints of each model for one task."""
        table = self.results.series
        of_task = table.task == task
        kept = evenly(self.table[of_task].drop_duplicates("path"), most).path
        return replace(self.results, table=table[~of_task | table.path.isin(kept)])

    def array(self, path: str, task: str, name: str) -> np.ndarray | None:
        """Return an array of one result, such as ``head/singular_values`` of ``lmsat_head``; None if it is missing."""
        try:
            return self.results.arrays(path, task, name).get(name)
        except ArraysError as error:
            logger.warning("Left out: %s", error)
        except LmsatError as error:
            logger.info("No array: %s", error)
        return None

    @cached_property
    def ranks(self) -> list[CheckpointRanks]:
        """Losses of lmsat_rank_head at each model's last checkpoint, and accuracies by head rank."""
        return self._try("ranks", lambda: find_rank_needed(self._some("lmsat_rank_head", 1)))

    @cached_property
    def models_with_contexts(self) -> list[str]:
        """The models whose arrays of lmsat_loss the results name, from small to large."""
        values = self.table[self.table.task == "lmsat_loss"].drop_duplicates("path")
        with_arrays = [path for path in values.path if "arrays" in self.results.files[path].notes("lmsat_loss")]
        named = set(values.model[values.path.isin(with_arrays)])
        return [model for model in self.sizes if model in named]

    @cached_property
    def context(self) -> list[CheckpointContext]:
        """The loss by position in the context of some checkpoints of some models, from small to large models."""
        some = self._some("lmsat_loss", _CONTEXTS)
        if chosen := spread(self.models_with_contexts, _CONTEXT_MODELS):
            some = replace(some, table=some.table[self.table.model[some.table.index].isin(chosen)])
        order = list(self.sizes).index
        return self._try("context", lambda: sorted(find_context(some), key=lambda result: order(result.label)))

    @cached_property
    def models_with_curves(self) -> list[str]:
        """The models, from small to large, whose losses at ten or more steps make a learning curve."""
        rows = self._curve_rows
        number = rows.groupby("model").step.nunique()
        return [model for model in self.sizes if number.get(model, 0) >= LEAST_FOR_CURVE]

    @cached_property
    def curves(self) -> list[RunCurve]:
        """The learning curves of some models, from small to large."""
        chosen = spread(self.models_with_curves, _CURVE_MODELS)
        rows = self._curve_rows[self._curve_rows.model.isin(chosen)]
        found = self._try("curves", lambda: fit_curves(rows)) if chosen else []
        return sorted(found, key=lambda curve: chosen.index(curve.model))

    @property
    def _curve_rows(self) -> pd.DataFrame:
        rows = values_of(self.table, "lmsat_loss", "loss").rename(columns={"value": "loss"})[["model", "step", "loss"]]
        return rows[(rows.step > 0) & ~rows.model.isin(self.diverged)]

    @cached_property
    def isoflops(self) -> IsoFlops | None:
        """The sizes of least loss at equal compute, by the models' last checkpoints; None where they show none."""
        found = self._try("isoflops", lambda: [fit_isoflops(self.final_losses())])
        return found[0] if found else None
