"""The tidy table of results: one value a row. Imports neither lm_eval nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lmsat_plugin.results.reading import TaskResult
from lmsat_plugin.results.variants import Variant

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("model", "variant", "revision", "commit", "step", "tokens"),
    *("n_params", "n_params_non_embedding", "hidden_size", "vocab_size"),
    *("corpus", "task", "num_fewshot", "metric", "filter"),
    *("value", "stderr", "n_samples", "higher_is_better", "date", "path"),
)
_KINDS = {
    **dict.fromkeys(("step", "tokens", "n_params", "n_params_non_embedding", "hidden_size", "vocab_size"), "Int64"),
    **dict.fromkeys(("num_fewshot", "n_samples"), "Int64"),
    **dict.fromkeys(("value", "stderr", "date"), "float64"),
    "higher_is_better": "boolean",
}
_OF_METRICS = ("metric", "filter", "value", "stderr", "higher_is_better")
"""The parts of an entry of `TaskResult.metrics`."""
_IDENTITY = ["model", "variant", "revision", "commit", "corpus", "task", "num_fewshot", "metric", "filter"]
ORDER = ("model", "variant", "corpus", "task", "num_fewshot", "metric", "filter", "step", "revision")
"""The columns by which rows are sorted."""


def make_table(results: Iterable[tuple[TaskResult, Variant]], *, all_results: bool = False) -> pd.DataFrame:
    """Return a row for each value, with `COLUMNS`, sorted by model, corpus, task and so on up to the step.

    Of a value measured several times the newest is kept; ``all_results`` keeps all. Counts are nullable integers;
    ``date`` is when the evaluation began, in UTC; ``variant`` is missing where nothing differs.
    """
    # From the oldest to the newest.
    table = _rows(results).sort_values(["date", "path"], na_position="first", kind="stable")
    if not all_results:
        table = table.drop_duplicates(_IDENTITY, keep="last")
    order = table.assign(variant=table.variant.fillna("")).sort_values(list(ORDER), na_position="last").index
    return table.loc[order].reset_index(drop=True)


def _rows(results: Iterable[tuple[TaskResult, Variant]]) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for result, variant in results:
        origin = result.origin
        shared = {
            "model": origin.model,
            "variant": str(variant) or None,
            "revision": origin.revision,
            "commit": origin.commit,
            "step": origin.progress.step,
            "tokens": origin.progress.tokens,
            **origin.sizes,
            "corpus": result.corpus,
            "task": result.task,
            "num_fewshot": result.num_fewshot,
            "n_samples": result.n_samples,
            "date": origin.date,
            "path": origin.path,
        }
        for metric in result.metrics:
            for name, value in {**shared, **dict(zip(_OF_METRICS, metric, strict=True))}.items():
                columns[name].append(value)
    table = pd.DataFrame(columns, dtype="object").astype(_KINDS)
    return table.assign(date=pd.to_datetime(table.date, unit="s", utc=True, errors="coerce").dt.as_unit("us"))
