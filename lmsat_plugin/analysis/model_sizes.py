"""Models of one size, and models of one recipe: as columns of a table state them, or else the models' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmsat_plugin.results.checkpoint_names import parse_count, parse_size, size_in_name

if TYPE_CHECKING:
    import pandas as pd

_ALIKE = 1.1
"""The ratio of numbers of parameters up to which two models have one size."""


@dataclass(frozen=True)
class SizeGroup:
    """Models that are compared."""

    label: str | None
    """Such as ``160M``, or ``70M to 410M`` of several sizes; None where unknown."""
    number: float | None
    """The least number of parameters, as the size states it; None where unknown."""
    models: tuple[str, ...]
    several: bool = False
    """Whether the models have different sizes."""


def size_groups(models: pd.DataFrame) -> list[SizeGroup]:
    """Return the models of each size, from small to large; all models as one group where no two have one size.

    ``models`` are rows with ``group``, the model's name, and maybe ``size`` and ``n_params``. Sizes are alike that
    differ by no more than a tenth. Models of unknown size come last, as a group of their own.
    """
    sizes: dict[str, tuple[str | None, float | None]] = {}
    for row in models.to_dict("records"):
        sizes.setdefault(str(row["group"]), _size(row))
    groups: list[SizeGroup] = []
    order = sorted(sizes, key=lambda name: (sizes[name][1] is None, sizes[name][1] or 0.0, sizes[name][0] or ""))
    for name in order:
        label, number = sizes[name]
        before = groups[-1] if groups else None
        if before is not None and _alike((before.label, before.number), (label, number)):
            groups[-1] = SizeGroup(before.label, before.number, (*before.models, name))
        else:
            groups.append(SizeGroup(label, number, (name,)))
    if len(groups) > 1 and all(len(group.models) == 1 for group in groups):
        known = [group.label for group in groups if group.label is not None]
        span = f"{known[0]} to {known[-1]}" if len(known) > 1 else None
        return [SizeGroup(span, groups[0].number, tuple(order), several=True)]
    return groups


def recipes_of(models: pd.DataFrame) -> dict[str, str]:
    """Return the recipe of each model: the column ``recipe``, else the name without the size; none without either."""
    recipes: dict[str, str] = {}
    for row in models.to_dict("records"):
        name, stated = str(row["group"]), row.get("recipe")
        if _is_stated(stated):
            recipes[name] = str(stated)
            continue
        found = row.get("size") if _is_stated(row.get("size")) and str(row["size"]) in name else size_in_name(name)
        if found is not None:
            recipes[name] = " ".join(re.split(r"[\s_/-]+", name.replace(str(found), " "))).strip()
    return recipes


def _size(row: Mapping[Any, Any]) -> tuple[str | None, float | None]:
    """Return the label and the number of parameters of a model's size."""
    number = float(row["n_params"]) if _is_stated(row.get("n_params")) else None
    if _is_stated(row.get("size")):
        label = str(row["size"])
        return label, parse_count(label) or number
    if number is not None:
        return short_size(number), number
    named = size_in_name(str(row["group"]))
    return (None, None) if named is None else (named.upper(), parse_size(named))


def short_size(number: float) -> str:
    """Return a number of parameters in three digits, such as 1.28B."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:.0f}"


def _alike(first: tuple[str | None, float | None], second: tuple[str | None, float | None]) -> bool:
    if first[1] is None or second[1] is None:
        return first == second
    return second[1] <= _ALIKE * first[1]


def _is_stated(cell: Any) -> bool:
    import pandas as pd

    return not pd.isna(cell) and str(cell) != ""
