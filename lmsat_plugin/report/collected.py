"""What a tree of results holds, and what the analyses make of it: all that a report and a leaderboard draw on."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from lmsat_plugin.analysis.tables import loss_of_results, of_corpora
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.arrays import arrays_of
from lmsat_plugin.harness.results import load_results
from lmsat_plugin.report.checkpoint_values import evenly, furthest, sizes_of
from lmsat_plugin.report.rank_results import file_of
from lmsat_plugin.report.saturation_results import find_saturation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import pandas as pd

    from lmsat_plugin.analysis.emergence import Emergence
    from lmsat_plugin.analysis.saturation import Saturation
    from lmsat_plugin.analysis.scaling_laws import Fit
    from lmsat_plugin.report.bottleneck import Found
    from lmsat_plugin.report.context_results import ContextOfCheckpoint
    from lmsat_plugin.report.model_looks import Sizes

logger = logging.getLogger(__name__)

T = TypeVar("T")

_OF_CONTEXT = 8
"""Checkpoints of a model whose losses by position are drawn."""
_OF_DATA = {"E": 1.69, "B": 410.7, "beta": 0.28}
"""Hoffmann et al. 2022 as printed; Godey et al. 2024 fit A and alpha beside them (Fig. 1b)."""


@dataclass(frozen=True, eq=False)
class Collected:
    """The results in a folder; each analysis is made when it is first asked for.

    An analysis that the results do not allow is empty, and `missing` says why.
    """

    root: Path
    table: pd.DataFrame
    """Tidy, on one corpus; see `lmsat_plugin.load_results`."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why an analysis is empty, one sentence by its name."""
    all_corpora: pd.DataFrame | None = None
    """The table before one corpus was chosen; None if it is the same."""

    @classmethod
    def of(
        cls,
        root: Path,
        corpus: str | None = None,
        step_pattern: str | None = None,
        tokens_per_step: int | None = None,
    ) -> Collected:
        """Read a folder of results, or one file.

        Raises:
            LmsatError: If there are none, for a corpus that is not there, and for several where none is chosen.
        """
        table = load_results(root, step_pattern=step_pattern, tokens_per_step=tokens_per_step)
        corpora = sorted(map(str, table.corpus.dropna().unique()))
        if corpus is None and len(corpora) > 1:
            raise LmsatError(
                f"{root} holds results on {', '.join(corpora)}, which do not compare: choose one with --corpus NAME"
            )
        chosen = table if corpus is None else of_corpora(table, [corpus], root)
        return cls(root, chosen, all_corpora=table if len(corpora) > 1 else None)

    def _try(self, name: str, find: Callable[[], list[T]]) -> list[T]:
        try:
            return find()
        except LmsatError as error:
            self.missing[name] = str(error)
            return []

    @cached_property
    def sizes(self) -> Sizes:
        """The parameters of each model, from small to large."""
        return sizes_of(self.table)

    @cached_property
    def saturation(self) -> list[Saturation]:
        """The verdicts by lmsat_loss, or by the only metric there is."""
        return self._try("saturation", lambda: find_saturation(self.table, self.root, None, None, None))

    @cached_property
    def emergence(self) -> list[Emergence]:
        """Of each task and metric."""
        from lmsat_plugin.analysis.emergence import find_emergence

        return self._try("emergence", lambda: find_emergence(self.table))

    @cached_property
    def law(self) -> Fit | None:
        """Chinchilla's law by the final checkpoints of the models larger than all that saturate; None without one.

        Where all have seen as many tokens, which says nothing of the data, its part is the one that Godey et al. 2024
        take as given (Fig. 1b).
        """
        from lmsat_plugin.analysis.scaling_laws import fit

        def find() -> list[Fit]:
            finals = self.final_losses(larger=True)
            if finals.empty:
                raise LmsatError("a law is fitted to models larger than all that saturate, and there is none")
            return [fit("chinchilla", finals, _OF_DATA if finals.tokens.nunique() == 1 else None)]

        found = self._try("law", find)
        return found[0] if found else None

    @cached_property
    def transfer(self) -> dict[str, Fit]:
        """The line between the losses on the corpus and those on each other one, by its name."""
        import pandas as pd

        from lmsat_plugin.analysis.scaling_laws import fit

        if self.all_corpora is None:
            return {}
        others = self.all_corpora[~self.all_corpora.index.isin(self.table.index)]

        def line_to(corpus: str) -> list[tuple[str, Fit]]:
            rows = others[others.corpus == corpus]
            return [(corpus, fit("transfer", pd.concat([self.table, rows])))]

        corpora = sorted(map(str, others.corpus.unique()))
        return dict(
            one for name in corpora for one in self._try(f"transfer to {name}", partial(line_to, name))
        )

    def final_losses(self, larger: bool = False) -> pd.DataFrame:
        """Return lmsat_loss at each model's last checkpoint; ``larger`` is of models larger than all that saturate.

        Columns as of `loss_of_results`. Raises `LmsatError` if there is no lmsat_loss.
        """
        last = furthest(loss_of_results(self.table))
        if larger:
            risen = last.model.isin([one.model for one in self.saturation if one.verdict == "saturates"])
            last = last[~(last.n_params <= last.n_params[risen].astype("float64").max())]
        return last.reset_index(drop=True)

    def _some(self, task: str, most: int) -> pd.DataFrame:
        """Return the table, of one task no more than so many checkpoints of each model."""
        of_task = self.table.task == task
        kept = evenly(self.table[of_task].drop_duplicates("path"), most).path
        return self.table[~of_task | self.table.path.isin(kept)]

    def array(self, path: str, name: str) -> np.ndarray | None:
        """Return an array that a result file of the table names, such as ``head/singular_values``; None without it."""
        try:
            return arrays_of(file_of(path, self.root), (name,)).get(name)
        except LmsatError as error:
            logger.info("No array: %s", error)
            return None

    @cached_property
    def ranks(self) -> list[Found]:
        """What lmsat_rank_head has left of each model's last checkpoint, and accuracies by rank."""
        from lmsat_plugin.report.bottleneck import find

        table = self._some("lmsat_rank_head", 1)
        return self._try("ranks", lambda: find(table, self.root, None, 0.01, None))

    @cached_property
    def context(self) -> list[ContextOfCheckpoint]:
        """The loss by position of some checkpoints of each model."""
        from lmsat_plugin.report.context_results import find_context

        return self._try("context", lambda: find_context(self._some("lmsat_loss", _OF_CONTEXT), self.root))
