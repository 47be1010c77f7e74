"""What a subcommand is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import argparse


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
        """Do it. Raises `LmsatError` for what the user can mend."""
