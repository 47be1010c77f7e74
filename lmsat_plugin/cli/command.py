"""What a subcommand is, and what those that answer a question share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lmsat_plugin.cli.tables import TextTable, print_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from matplotlib.figure import Figure


class Command(ABC):
    """One subcommand. The class' docstring is its description."""

    name: ClassVar[str]
    help: ClassVar[str]
    passes_on: ClassVar[bool] = False
    """Whether arguments it does not know are its business, in ``args.rest``."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        return

    @abstractmethod
    def run(self, args: argparse.Namespace) -> int | None:
        """Run it; return the exit code. Raises `LmsatError` for bad input."""


@dataclass(frozen=True)
class Answer:
    """What a command answers."""

    data: Any
    """Plain data, as ``--json`` prints it."""
    parts: Iterable[TextTable | str]
    """Tables and sentences for people, in order."""
    draw: Callable[[], Figure] | None = None
    """Draws the figure; None for a command that has none."""


class AnsweringCommand(Command):
    """A subcommand that answers in tables for people or in JSON, and may draw a figure."""

    has_figure: ClassVar[bool] = True

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments other than those of the output."""
        return

    @abstractmethod
    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the answer. Raises `LmsatError` for bad input."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        self.add_options(parser)
        if self.has_figure:
            parser.add_argument(
                "--figure",
                type=Path,
                metavar="FILE",
                help="draw into a file, whose name ends in .png, .svg or .pdf",
            )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> None:
        """Write the figure, and print the answer."""
        figure: Path | None = getattr(args, "figure", None)
        if figure is not None:
            # Before anything is computed: a figure that cannot be written is an error.
            from lmsat_plugin.figures.style import check_suffix, write_figure

            check_suffix(figure)
        answer = self.answer(args)
        if figure is not None and answer.draw is not None:
            write_figure(answer.draw(), figure)
        if args.json:
            print(json.dumps(answer.data, indent=2, allow_nan=False))
            return
        for part in answer.parts:
            print(part, flush=True) if isinstance(part, str) else print_table(*part)
