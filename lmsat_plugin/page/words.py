"""What a report shows: a figure, with its words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sized

    import pandas as pd

    from lmsat_plugin.analysis.checkpoint_values import Sizes

_MOST_NAMED = 6


def sizes_in(sizes: Sizes, models: Iterable[str]) -> Sizes:
    """Return the sizes of some models, in the same order."""
    there = set(models)
    return {model: size for model, size in sizes.items() if model in there}


def each(rows: pd.DataFrame, sizes: Sizes, words: Callable[[dict[Any, Any]], str]) -> str:
    """Return a few words of each model's row, by size."""
    by_model = {row["model"]: row for row in rows.to_dict("records")}
    return listed(f"{model} {words(by_model[model])}" for model in sizes)


def listed(parts: Iterable[str]) -> str:
    """Return a few parts as a list in words, and how many more there are."""
    named = list(parts)
    more = len(named) - _MOST_NAMED
    return "; ".join(named[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def some_of(drawn: Sized, sizes: Sizes) -> str:
    """Return what a title has to add where not all models are drawn."""
    return f", {len(drawn)} of {len(sizes)} models" if len(drawn) < len(sizes) else ""


def models_said(sizes: Sizes) -> str:
    """Return how many models there are."""
    return "one model" if len(sizes) == 1 else f"{len(sizes)} models"
