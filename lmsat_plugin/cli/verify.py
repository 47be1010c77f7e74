"""``lmsat verify``: whether every file of a tree of results is as it was written, and what to do where one is not."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.tables import print_table
from lmsat_plugin.files import user_path

if TYPE_CHECKING:
    from lmsat_plugin.sweeps.verification import TreeProblem


class VerifyCommand(Command):
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

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the folder, and what to do with problems."""
        parser.add_argument("folder", metavar="DIR", help="a folder with result files, or one file")
        parser.add_argument(
            "--repair",
            action="store_true",
            help="rename what is damaged to *.quarantined, remove what killed processes left, and say what to run",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Print the problems, and repair what can be repaired."""
        from lmsat_plugin.sweeps.verification import verify

        root = user_path(args.folder)
        found = verify(root)
        rows = [(_shown(problem.path, root), problem.kind, problem.what) for problem in found.problems]
        if args.json:
            problems = [dict(zip(("path", "kind", "what"), row, strict=True)) for row in rows]
            print(json.dumps({"files": found.files, "problems": problems}, indent=2))
        elif rows:
            print_table(f"{len(rows):,} problems in {found.files:,} files", ("path", "kind", "what"), rows)
        else:
            print(f"{found.files:,} files, no problem.")
        if rows:
            # Not among the JSON.
            print(_repair(found.problems) if args.repair else _advice(found.problems), file=sys.stderr)
        return int(bool(rows))


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
