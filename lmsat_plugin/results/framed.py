"""Results of analyses as tables: `Framed` for one, `Answers` for a list of one kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


class Framed(ABC):
    """A result that is a table, too, as which a notebook shows it."""

    @abstractmethod
    def frame_rows(self) -> Sequence[Mapping[str, Any]]:
        """Return the rows as plain data."""

    def to_frame(self) -> pd.DataFrame:
        """Return the table. What a row holds in mappings has columns of its own, named ``key.key``."""
        import pandas as pd

        return pd.DataFrame([flat(row) for row in self.frame_rows()]).convert_dtypes()

    def _repr_html_(self) -> str:
        return self.to_frame().dropna(axis="columns", how="all").to_html(notebook=True)


class Answers(list[T], Framed):
    """The results of an analysis: a list whose `to_frame` is a table with a row a result."""

    def frame_rows(self) -> Sequence[Mapping[str, Any]]:
        """Return each result as plain data."""
        return [each.to_dict() for each in self]  # type: ignore[attr-defined]


def flat(entry: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return an entry with those of its mappings beside its own, named ``key.key``."""
    found: dict[str, Any] = {}
    for key, value in entry.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return found
