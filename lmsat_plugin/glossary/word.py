"""A word of the glossary."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """One word, and what it means."""

    name: str
    meaning: str
    also: tuple[str, ...] = ()
    """What else it is called: columns of tables, and metrics."""
