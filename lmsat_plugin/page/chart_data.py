"""What the page's charts draw: every value of every metric at every checkpoint, column by column.

A chart has all checkpoints. Those that a verdict leaves out are marked by what `Saturation` says of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.chance import chance_level, measured_chances
from lmsat_plugin.analysis.saturation import Saturation
from lmsat_plugin.figures.model_looks import SEQUENTIAL, screen_looks
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.metrics import metric as known_metric
from lmsat_plugin.outside_text import printable
from lmsat_plugin.page.array_data import array_data
from lmsat_plugin.page.commands import commands_of
from lmsat_plugin.page.explained import meaning
from lmsat_plugin.page.numbers import number, numbers_of
from lmsat_plugin.page.sample_data import sample_data
from lmsat_plugin.page.sections.cards import ABOVE_CHANCE, above_chance
from lmsat_plugin.page.sections.every_metric import is_logarithmic
from lmsat_plugin.page.tables import headings_of, with_room
from lmsat_plugin.results.series import AXES, data_seen, labelled

VALUES = 400_000
"""The most values in a page: more would make it large. The others are in the CSV file."""
_DIGITS, _ERROR_DIGITS = 7, 3
_CHECKPOINT = ["model", "revision", "at"]
_METRIC = ["task", "num_fewshot", "metric", "filter"]


@dataclass(frozen=True, eq=False)
class ChartData:
    """The values, and which of them the page's figures draw."""

    content: dict[str, Any]
    """As the page holds it: ``axes``, ``groups``, ``models``, ``metrics``, ``values``, ``verdicts``, ``left_out``; and
    what `ArrayData`, `SampleData` and `commands_of` have."""
    groups: dict[str, int]
    """The place of a model, with its replicates, in ``groups``."""
    places: dict[tuple[str, str], int]
    """The place of a task's metric in ``metrics``; of several numbers of shots or filters, that of the most values."""

    def panels(self, figure: ReportFigure) -> dict[str, Any] | None:
        """Return what is drawn in a figure's place, as `ShownFigure.panels`; None where it stays an image."""
        if figure.axes:
            pairs = zip(figure.panels, figure.axes, strict=True)
            known = [(self.places[panel], axis) for panel, axis in pairs if panel in self.places]
            return {"panels": [metric for metric, _ in known], "groups": None, "axes": [axis for _, axis in known]}
        metrics = dict.fromkeys(self.places[panel] for panel in figure.panels if panel in self.places)
        if figure.models is None:
            return {"panels": list(metrics), "groups": None} if metrics else None
        groups = [self.groups[model] for model in figure.models if model in self.groups]
        drawn = [metric for metric in metrics if self._groups_with(metric) & set(groups)]
        return {"panels": drawn, "groups": groups} if drawn else None

    def _groups_with(self, metric: int) -> set[int]:
        return {self.content["models"][model]["group"] for model, *_ in self.content["values"][metric]}


def chart_data(analyses: Analyses) -> ChartData:
    """Return what the charts of a report draw."""
    rows, checkpoints = _rows(analyses)
    rows = rows.assign(heading=headings_of(rows))
    kept, left_out = with_room(rows, VALUES * rows.heading.nunique() // len(rows))
    by_heading = dict(list(rows.groupby("heading", sort=False)))
    numbers = {model: number for number, model in enumerate(checkpoints)}
    measured = measured_chances(analyses.table)
    metrics = [_metric(by_heading[heading], measured) for heading in kept]
    values = [
        [
            [numbers[str(model)], *_columns(one, len(checkpoints[str(model)]))]
            for model, one in by_heading[heading].groupby("model", sort=False)
        ]
        for heading in kept
    ]
    exact = {_key(by_heading[heading].iloc[0].to_dict()): place for place, heading in enumerate(kept)}
    by_length = sorted(exact, key=lambda key: len(by_heading[kept[exact[key]]]))
    places = {(key[0], key[2]): exact[key] for key in by_length}
    groups = {group: place for place, group in enumerate(analyses.group_sizes)}
    content = {
        "axes": {**AXES, "flops": "compute 6ND (FLOP)", "share": "share of training"},
        "groups": [[printable(name), *looks] for name, looks in screen_looks(analyses.group_sizes).items()],
        "models": [
            {"name": printable(model), "group": groups[own.group.iloc[0]], **_places(own)}
            for model, own in checkpoints.items()
        ],
        "metrics": metrics,
        "values": values,
        "verdicts": [
            {"model": numbers[result.label], "metric": exact[_key(vars(result))], **_verdict(result)}
            for result in analyses.saturation
            if _key(vars(result)) in exact
        ],
        "left_out": left_out,
        "map": [to_hex(colour) for colour in SEQUENTIAL(np.linspace(0, 1, 17))],
        **vars(array_data(analyses, checkpoints)),
        **vars(sample_data(analyses, checkpoints)),
        **commands_of(analyses, checkpoints),
    }
    return ChartData(content, groups, places)


def _rows(analyses: Analyses) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Return the values with their checkpoint's number ``k`` of its model, and each model's checkpoints in order.

    The models are in the order of their sizes, which is that of their numbers in the page.
    """
    table = analyses.table.assign(tokens=data_seen(analyses.table))
    first = table.drop_duplicates(_CHECKPOINT).sort_values("at", na_position="last", kind="stable")
    first = first.assign(k=first.groupby("model").cumcount())
    table = table.merge(first[[*_CHECKPOINT, "k"]], on=_CHECKPOINT, how="left")
    averages = above_chance(analyses).rename(columns={"step": "at"})
    averages = averages.merge(first[["model", "at", "k"]].drop_duplicates(["model", "at"]), on=["model", "at"])
    derived = averages.assign(task=ABOVE_CHANCE[0], metric=ABOVE_CHANCE[1])
    columns = ["model", "k", *_METRIC, "value", "stderr"]
    others = [other.merge(first[[*_CHECKPOINT, "k"]], on=_CHECKPOINT)[columns] for other in _other_corpora(analyses)]
    rows = pd.concat([table[columns], derived.reindex(columns=columns).astype(table[columns].dtypes), *others])
    rows = rows.drop_duplicates(["model", "k", *_METRIC], keep="last").sort_values(["model", "k"], kind="stable")
    by_model = {str(model): own for model, own in first.groupby("model", sort=False)}
    return rows, {model: by_model[model] for model in analyses.sizes}


def _other_corpora(analyses: Analyses) -> Iterator[pd.DataFrame]:
    """Yield the values on each corpus that the report is not on; their tasks name it."""
    table = analyses.everything.table
    for corpus in sorted(set(table.corpus.dropna()) - set(analyses.table.corpus.dropna())):
        rows = labelled(analyses.everything.select([corpus]).series)
        rows = rows[rows.corpus == corpus]
        yield rows.assign(task=rows.task + f" on {corpus}")


def _key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    """Return what tells a metric from others: task, shots, metric, filter."""
    return tuple(None if pd.isna(row[name]) else row[name] for name in _METRIC)


def _metric(rows: pd.DataFrame, measured: Mapping[str, float]) -> dict[str, Any]:
    first = rows.iloc[0]
    known = known_metric(first.metric)
    return {
        "name": printable(first.heading),
        "unit": known.unit,
        "meaning": meaning(first.metric),
        "chance": chance_level(first.task, first.metric, measured),
        "log": is_logarithmic(first.metric, rows.value),
    }


def _columns(rows: pd.DataFrame, checkpoints: int) -> list[Any]:
    """Return the numbers of the checkpoints, 0 if all have a value, the values, and their errors, 0 if none has."""
    at = rows.k.tolist()
    return [
        0 if len(at) == checkpoints else at,
        numbers_of(rows.value, _DIGITS),
        numbers_of(rows.stderr, _ERROR_DIGITS) if rows.stderr.notna().any() else 0,
    ]


def _places(checkpoints: pd.DataFrame) -> dict[str, Any]:
    """Return a model's checkpoints: names, places on their axis, tokens seen, and the parameters that compute."""
    sizes = [checkpoints[name].max() for name in ("n_params_non_embedding", "n_params")]
    known = [float(size) for size in sizes if not pd.isna(size) and size > 0]
    return {
        "axis": axis if isinstance(axis := checkpoints.axis.iloc[0], str) else None,
        "parameters": known[0] if known else None,
        "names": [printable(str(name)) for name in checkpoints.revision.fillna("")],
        "at": numbers_of(checkpoints["at"], 15),
        "tokens": numbers_of(checkpoints.tokens, 15) if checkpoints.tokens.notna().any() else 0,
    }


def _verdict(result: Saturation) -> dict[str, Any]:
    onset = [result.onset_at, result.onset_low, result.onset_high]
    return {
        "verdict": result.verdict,
        "best": [result.best_at, number(result.best, _DIGITS)],
        "onset": None if None in onset else onset,
        "from": result.min_at,
        "aside": result.set_aside_at,
        "diverged": result.diverged_at,
    }
