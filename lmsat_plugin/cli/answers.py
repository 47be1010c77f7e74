"""What the answer of a command is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lmsat_plugin.cli.tables import TextTable


@dataclass(frozen=True)
class Answer:
    """The answer of a command."""

    data: Any
    """Plain data, as ``--json`` prints it; or what the command's own `AnsweringCommand.write` takes."""
    parts: Iterable[TextTable | str]
    """Tables and sentences for people, in order."""
    result: Any = None
    """The result that ``--figure`` draws, see `lmsat_plugin.figures.plot`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `plot`."""
