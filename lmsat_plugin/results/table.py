"""The tidy table of results: one value a row. Imports neither lm_eval nor torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.results.places import Place
from lmsat_plugin.results.reading import TaskResult
from lmsat_plugin.results.training_order import natural_places
from lmsat_plugin.results.variants import Variant

if TYPE_CHECKING:
    import pandas as pd

_SIZES = ("n_params", "n_params_from_name", "n_params_non_embedding", "hidden_size", "vocab_size")
_PLACE = ("run", "stage", "revision", "commit", "step", "tokens", "words", "total_step", "total_tokens")
COLUMNS = (
    *("model", "variant", *_PLACE, *_SIZES),
    *("corpus", "task", "num_fewshot", "metric", "filter"),
    *("value", "stderr", "n_samples", "higher_is_better", "date", "path"),
)
_KINDS = {
    **dict.fromkeys(("step", "tokens", "words", "total_step", "total_tokens"), "Int64"),
    **dict.fromkeys((*_SIZES, "num_fewshot", "n_samples"), "Int64"),
    **dict.fromkeys(("value", "stderr", "date"), "float64"),
    **dict.fromkeys(("n_params_from_name", "higher_is_better"), "boolean"),
}
_SHARED = (*("model", "variant", *_PLACE, *_SIZES), *("corpus", "task", "num_fewshot", "n_samples", "date", "path"))
_OF_METRICS = ("metric", "filter", "value", "stderr", "higher_is_better")
"""The parts of an entry of `TaskResult.metrics`."""
_IDENTITY = ["model", "variant", "run", "revision", "commit", "corpus", "task", "num_fewshot", "metric", "filter"]
ORDER = ("model", "variant", "corpus", "task", "num_fewshot", "metric", "filter", "run", "step", "revision")
"""The columns by which rows are sorted."""


def make_table(
    results: Iterable[tuple[TaskResult, Variant]], places: Mapping[str, Place], *, all_results: bool = False
) -> tuple[pd.DataFrame, str | None]:
    """Return a row for each value, with `COLUMNS`, sorted by model, corpus, task and so on up to the step, names in
    natural order.

    ``places`` are of the files, by their paths. Of a value measured several times the newest is kept, and a sentence
    says how many were not; ``all_results`` keeps all. Counts are nullable integers; ``date`` is when the evaluation
    began, in UTC; ``variant`` is missing where nothing differs.
    """
    # From the oldest to the newest.
    table = _rows(results, places).sort_values(["date", "path"], na_position="first", kind="stable")
    repeated = np.zeros(len(table), bool)
    note = None
    if not all_results:
        of_values = table.assign(commit=_commits(table))
        repeated = of_values.duplicated(_IDENTITY, keep="last").to_numpy()
        note = _note(of_values, repeated)
    table = table[~repeated]
    named = table.assign(variant=table.variant.fillna(""))
    order = named.sort_values(list(ORDER), na_position="last", key=natural_places).index
    return table.loc[order].reset_index(drop=True), note


def _note(table: pd.DataFrame, repeated: np.ndarray) -> str | None:
    """Return a sentence on the values that were measured again; None where there are none."""
    if not repeated.any():
        return None
    several = table[table.duplicated(_IDENTITY, keep=False)]
    values = several.groupby(_IDENTITY, dropna=False, sort=False).value
    other = int((values.transform("nunique") > 1).to_numpy()[several.index.isin(table.index[repeated])].sum())
    count = int(repeated.sum())
    return (
        f"{count:,} of {len(table):,} values {'were' if count > 1 else 'was'} measured again with the same settings"
        f"{f', {other:,} of them with another outcome' if other else ''}: "
        "the newest of each is taken; --all of lmsat results shows the others"
    )


def _commits(table: pd.DataFrame) -> pd.Series:
    """Return the commit of each row; of one that states none, the only one that others of its revision state."""
    of_revision = table.groupby(["model", "run", "revision"], dropna=False, sort=False).commit
    is_known = table.commit.notna() | (of_revision.transform("nunique") != 1)
    return table.commit.where(is_known, of_revision.transform("first"))


def _rows(results: Iterable[tuple[TaskResult, Variant]], places: Mapping[str, Place]) -> pd.DataFrame:
    import pandas as pd

    pairs = list(results)
    of_tasks = [_shared(result, variant, places[result.origin.path]) for result, variant in pairs]
    shared = pd.DataFrame(of_tasks, columns=list(_SHARED), dtype="object")
    shared = shared.astype({name: kind for name, kind in _KINDS.items() if name in _SHARED})
    shared = shared.assign(date=pd.to_datetime(shared.date, unit="s", utc=True, errors="coerce").dt.as_unit("us"))
    of_values = pd.DataFrame([m for result, _ in pairs for m in result.metrics], columns=_OF_METRICS, dtype="object")
    of_values = of_values.astype({name: kind for name, kind in _KINDS.items() if name in _OF_METRICS})
    task_of_value = np.repeat(np.arange(len(pairs)), [len(result.metrics) for result, _ in pairs])
    table = shared.take(task_of_value).reset_index(drop=True)
    return table.assign(**{name: of_values[name] for name in _OF_METRICS})[list(COLUMNS)]


def _shared(result: TaskResult, variant: Variant, place: Place) -> tuple[Any, ...]:
    """Return what the rows of a task have in common, in the order of `_SHARED`."""
    origin = result.origin
    progress, totals = place
    return (
        *(origin.model, str(variant) or None, progress.run, progress.stage, origin.revision, origin.commit),
        *(progress.step, progress.tokens, progress.words, *totals),
        *(origin.sizes.get(name) for name in _SIZES),
        *(result.corpus, result.task, result.num_fewshot, result.n_samples, origin.date, origin.path),
    )
