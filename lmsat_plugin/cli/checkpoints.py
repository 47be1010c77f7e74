"""``lmsat checkpoints``: the checkpoints of a series, before a sweep measures them."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.arguments import add_steps
from lmsat_plugin.cli.command import Answer, AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from lmsat_plugin.sweeps.checkpoints import Checkpoint

_REQUESTS_AT_ONCE = 8


class CheckpointsCommand(AnsweringCommand):
    """List the checkpoints that a repository of the Hub or a folder holds: revision, step, tokens, commit, size."""

    name = "checkpoints"
    has_figure = False
    help = "the checkpoints of a Hub repository or a folder"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("model", metavar="MODEL", help="a repository of the Hub, or a folder")
        parser.add_argument(
            "--revisions",
            nargs="+",
            metavar="SELECTION",
            help="list only these, as a sweep's `revisions`: all, first, last, log:N (N evenly over the logarithm of "
            "the step), every:N, A..B (steps, such as 1k..10k), stage:NAME, run:NAME, a name, a glob, a step or a "
            "commit; words in one selection combine, as in 'stage:1 log:20'",
        )
        add_steps(parser)
        parser.add_argument(
            "--sizes", action="store_true", help="show sizes on the Hub, too: one request for each revision"
        )

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the list."""
        from lmsat_plugin.sweeps.checkpoints import find_checkpoints
        from lmsat_plugin.sweeps.selection import select

        if args.tokens_per_step is not None and args.tokens_per_step < 1:
            raise LmsatError(f"--tokens-per-step={args.tokens_per_step}: give the number of tokens, 1 or more")
        series = find_checkpoints(args.model, tokens_per_step=args.tokens_per_step, step_pattern=args.step_pattern)
        if args.revisions:
            series = select(series, args.revisions)
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            sizes = list(pool.map(lambda c: _size(c) if c.folder or args.sizes else None, series))
        keys = ("model", "pretrained", "revision", "step", "tokens", "commit")
        pairs = zip(series, sizes, strict=True)
        rows: list[dict[str, Any]] = [{**{key: getattr(c, key) for key in keys}, "size": size} for c, size in pairs]
        columns = {"revision": [row["revision"] for row in rows]}
        for key in ("step", "tokens"):
            columns[key] = _right([f"{row[key]:,}" if row[key] is not None else "" for row in rows])
        columns["commit"] = [(row["commit"] or "")[:8] for row in rows]
        columns["size"] = _right([_readable(row["size"]) for row in rows])
        known = {key: cells for key, cells in columns.items() if any(cells)}
        title = f"{series[0].model}: {len(series)} checkpoint{'s' if len(series) != 1 else ''}"
        return Answer(data=rows, parts=[TextTable.of_columns(title, known)])


def _size(checkpoint: Checkpoint) -> int:
    """Return the bytes of a checkpoint's weights."""
    from lmsat_plugin.hub import file_sizes
    from lmsat_plugin.model.checkpoint_files import weight_files

    if checkpoint.folder is not None:
        sizes = {path.name: path.stat().st_size for path in checkpoint.folder.iterdir() if path.is_file()}
    else:
        sizes = file_sizes(checkpoint.pretrained, str(checkpoint.commit), checkpoint.revision)
    return sum(weight_files(sizes).values())


def _readable(size: int | None) -> str:
    """Return a size for people, such as 1.4 GB."""
    if size is None:
        return ""
    unit = next(unit for unit in (1e9, 1e6, 1e3, 0) if size >= unit)
    return f"{size / unit:.1f} {({1e9: 'GB', 1e6: 'MB', 1e3: 'kB'})[unit]}" if unit else f"{size} B"


def _right(cells: list[str]) -> list[str]:
    width = max(map(len, cells), default=0)
    return [cell.rjust(width) if cell else "" for cell in cells]
