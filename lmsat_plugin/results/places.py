"""The place in training of each result file of a tree: as a sweep noted it, or as all names of a model say together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from lmsat_plugin.results.checkpoint_names import TrainingProgress, parse_progress
from lmsat_plugin.results.origins import Naming, Origin
from lmsat_plugin.results.training_order import Totals, totals_of


class Place(NamedTuple):
    """Where a checkpoint lies in the training of its model."""

    progress: TrainingProgress
    totals: Totals


def places_of(origins: Iterable[Origin], naming: Naming) -> dict[str, Place]:
    """Return the place in training of each result file, by its path.

    What a sweep noted stands. Of other files, the names of all checkpoints of a model are read together.
    """
    of_model: dict[str, list[Origin]] = {}
    for origin in origins:
        of_model.setdefault(origin.model, []).append(origin)
    places: dict[str, Place] = {}
    for several in of_model.values():
        names = [origin.revision for origin in several if not origin.is_noted]
        series = naming.series(names)
        progress = [_in_series(origin, series.get(origin.revision)) for origin in several]
        for origin, own, totals in zip(several, progress, totals_of(progress), strict=True):
            places[origin.path] = Place(own, totals if origin.totals == Totals() else origin.totals)
    return places


def _in_series(origin: Origin, named: TrainingProgress | None) -> TrainingProgress:
    """Return what a result file states, without a number that is no step beside the other names."""
    if origin.is_noted or named is None or named.is_placed:
        return origin.progress
    is_of_name = origin.progress.step == parse_progress(origin.revision).step
    return replace(origin.progress, step=None, tokens=named.tokens) if is_of_name else origin.progress
