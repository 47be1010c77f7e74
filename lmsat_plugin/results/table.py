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
_INTEGERS = {
    *("step", "tokens", "n_params", "n_params_non_embedding", "hidden_size", "vocab_size"),
    *("num_fewshot", "n_samples"),
}
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
        origin, n = result.origin, len(result.metrics)
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
        for name, value in shared.items():
            columns[name] += [value] * n
        of_metrics = ("metric", "filter", "value", "stderr", "higher_is_better")
        for metric in result.metrics:
            for name, value in zip(of_metrics, metric, strict=True):
                columns[name].append(value)
    series = {}
    for name, values in columns.items():
        if name == "date":
            seconds = pd.Series(values, dtype="float64")
            dates = pd.to_datetime(seconds, unit="s", utc=True, errors="coerce")
            series[name] = dates.dt.as_unit("us")
        else:
            kind = {"value": "float64", "stderr": "float64", "higher_is_better": "boolean"}.get(name, "object")
            series[name] = pd.Series(values, dtype="Int64" if name in _INTEGERS else kind)
    return pd.DataFrame(series)
