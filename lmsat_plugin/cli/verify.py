"""``lmsat verify``: whether every file of a tree of results is as it was written, and what to do where one is not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.files import user_path

if TYPE_CHECKING:
    from lmsat_plugin.sweeps.verification import TreeProblem


class VerifyCommand(AnsweringCommand):
    """Check everything in a folder of results. Nothing is measured, and without --repair nothing is changed.

    What is checked: whether files can be read and hold their digests; arrays and samples against their results; whether
    a result is about the checkpoint in whose folder it lies, and holds what it says it measured; results that are there
    twice; files that a killed process left half-written or alone; checkpoints whose files have changed since they were
    measured; results of probes that have another version, or other settings, now.

    The exit code is 0 without problems, 1 with some, 2 for bad input.
    """

    name = "verify"
    help = "check that results are as they were written; put aside what is damaged"
    examples = ("lmsat verify results/", "lmsat verify results/ --repair")

    has_figure = False

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the folder, and what to do with problems."""
        parser.add_argument("folder", metavar="DIR", help="a folder with result files, or one file")
        parser.add_argument(
            "--repair",
            action="store_true",
            help="rename what is damaged to *.quarantined, remove what killed processes left, and say what to run",
        )

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the problems."""
        from lmsat_plugin.sweeps.verification import verify

        root = user_path(args.folder)
        found = verify(root)
        rows = [(_shown(problem.path, root), problem.kind, problem.what) for problem in found.problems]
        columns = ("path", "kind", "what")
        table = TextTable(f"{len(rows):,} problems in {found.files:,} files", columns, rows)
        problems = [dict(zip(columns, row, strict=True)) for row in rows]
        parts = [table if rows else f"{found.files:,} files, no problem."]
        return Answer(data={"files": found.files, "problems": problems}, parts=parts, result=found.problems)

    def present(self, args: argparse.Namespace, answer: Answer) -> int:
        """Print the problems, and repair what can be repaired."""
        super().present(args, answer)
        if problems := answer.result:
            # Not among the JSON.
            print(_repair(problems) if args.repair else _advice(problems), file=sys.stderr)
        return int(bool(problems))


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else str(path)


def _repair(problems: Sequence[TreeProblem]) -> str:
    from lmsat_plugin.sweeps.verification import repair

    aside, removed = repair(problems)
    return f"{len(aside)} files put aside as *.quarantined, {len(removed)} removed. {_next(problems)}"


def _advice(problems: Sequence[TreeProblem]) -> str:
    from lmsat_plugin.sweeps.verification import SOUND

    only_changed = all(problem.kind in SOUND for problem in problems)
    return _next(problems) if only_changed else "Put aside what is damaged with --repair, or restore it from a copy."


def _next(problems: Sequence[TreeProblem]) -> str:
    """Return what to run once damaged files are put aside."""
    if all(problem.kind in ("stray", "duplicate") for problem in problems):
        return "Nothing has to be measured again."
    return (
        "Run `lmsat sweep CONFIG.yaml` with the configuration that wrote these results: it measures again what is "
        "missing or has changed, and nothing else. Measure again with lm_eval what it has measured."
    )
