"""``lmsat checkpoints``: the checkpoints of a series, before a sweep measures them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.arguments import add_steps
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError


class CheckpointsCommand(AnsweringCommand):
    """List the checkpoints that a repository of the Hub or a folder holds, in the order of training.

    Revision, run, stage, step, tokens, words, commit and size of each, as far as they are known. MODEL may stand for
    several, which are one series: 'EleutherAI/pythia-410m-seed{1..9}', 'runs/seed*'.
    """

    name = "checkpoints"
    has_figure = False
    help = "the checkpoints of a Hub repository or a folder"
    examples = ("lmsat checkpoints runs/my-model", "lmsat checkpoints EleutherAI/pythia-160m --sizes")

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument(
            "model", metavar="MODEL", help="a repository of the Hub, or a folder; with braces or as a glob, several"
        )
        parser.add_argument(
            "--revisions",
            nargs="+",
            metavar="SELECTION",
            help="list only these, as a sweep's `revisions`: all, first, last, log:N (N evenly over the logarithm of "
            "the step), every:N, A..B (steps, such as 1k..10k), stage:NAME, run:NAME, a name, a glob, a step or a "
            "commit; average:N, average:A..B, ema:D for averages; commits for those of the main branch; words in "
            "one selection combine, as in 'stage:1 log:20'",
        )
        add_steps(parser)
        parser.add_argument(
            "--sizes", action="store_true", help="show sizes on the Hub, too: one request for each revision"
        )

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the list."""
        from lmsat_plugin.series.checkpoint import describe_left_out
        from lmsat_plugin.series.finding import find_series
        from lmsat_plugin.series.on_hub import asks_for_commits
        from lmsat_plugin.series.selection import select
        from lmsat_plugin.sweeps.listings import Listings

        if args.tokens_per_step is not None and args.tokens_per_step < 1:
            raise LmsatError(f"--tokens-per-step={args.tokens_per_step}: give the number of tokens, 1 or more")
        commits, revisions = asks_for_commits(args.revisions or [])
        naming = {"tokens_per_step": args.tokens_per_step, "step_pattern": args.step_pattern}
        found = find_series(args.model, commits=commits, wait=True, **naming)
        series = select(found.checkpoints, revisions) if revisions else found.checkpoints
        listings = Listings()
        if args.sizes:
            listings.ask(series)
        keys = "model", "pretrained", "revision", "run", "stage", "step", "tokens", "words", "commit"
        rows: list[dict[str, Any]] = [
            {**{key: getattr(c, key) for key in keys}, "size": _size_in(c.folder) if c.folder else listings.size(c)}
            for c in series
        ]
        columns = {"revision": [checkpoint.name for checkpoint in series]}
        for key in ("run", "stage"):
            columns[key] = [row[key] or "" for row in rows]
        for key in ("step", "tokens", "words"):
            columns[key] = _right([f"{row[key]:,}" if row[key] is not None else "" for row in rows])
        columns["commit"] = [(row["commit"] or "")[:8] for row in rows]
        columns["size"] = _right([_readable(row["size"]) for row in rows])
        known = {key: cells for key, cells in columns.items() if any(cells)}
        title = f"{series[0].model}: {len(series)} checkpoint{'s' if len(series) != 1 else ''}"
        left_out = describe_left_out(found.left_out)
        return Answer(data=rows, parts=[TextTable.of_columns(title, known), *([left_out] if left_out else [])])


def _size_in(folder: Path) -> int | None:
    """Return the bytes of the weights in a folder; None if it has none, or is a file of training code."""
    from lmsat_plugin.model.checkpoint_files import weight_files

    if not folder.is_dir():
        return None
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    return sum(weight_files(sizes).values()) or None


def _readable(size: int | None) -> str:
    """Return a size for people, such as 1.4 GB."""
    if size is None:
        return ""
    unit = next(unit for unit in (1e9, 1e6, 1e3, 0) if size >= unit)
    return f"{size / unit:.1f} {({1e9: 'GB', 1e6: 'MB', 1e3: 'kB'})[unit]}" if unit else f"{size} B"


def _right(cells: list[str]) -> list[str]:
    width = max(map(len, cells), default=0)
    return [cell.rjust(width) if cell else "" for cell in cells]
