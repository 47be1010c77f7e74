"""Words for titles and alt texts: lists of values by model, and how many models a figure draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any

import pandas as pd

from lmsat_plugin.analysis.saturation.events import MetricEvent

_MOST_NAMED = 6


def by_model(rows: pd.DataFrame, models: Iterable[str], words: Callable[[dict[Any, Any]], str]) -> str:
    """Return a list of the models, each with the words for its row."""
    row_of = {row["model"]: row for row in rows.to_dict("records")}
    return listed(f"{model} {words(row_of[model])}" for model in models)


def listed(parts: Iterable[str]) -> str:
    """Return the first parts as a list in words, and how many more there are."""
    named = list(parts)
    more = len(named) - _MOST_NAMED
    return "; ".join(named[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def events_in_words(events: Iterable[MetricEvent]) -> str:
    """Return a list of events in the order of their places."""
    ordered = sorted(events, key=lambda event: event.at)
    return listed(f"{event.metric} {event.kind} at {event.at}" for event in ordered)


def some_of(drawn: Sized, models: Sized) -> str:
    """Return the addition to a title where not all models are drawn."""
    return f", {len(drawn)} of {len(models)} models" if len(drawn) < len(models) else ""


def count_of(models: Sized) -> str:
    """Return the number of models in words."""
    return "one model" if len(models) == 1 else f"{len(models)} models"
