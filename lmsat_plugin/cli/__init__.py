"""The command ``lmsat``: a sibling of ``lm_eval``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from lmsat_plugin import __version__
from lmsat_plugin.cli.allocate import Allocate
from lmsat_plugin.cli.bottleneck import Bottleneck
from lmsat_plugin.cli.checkpoints import Checkpoints
from lmsat_plugin.cli.context import Context
from lmsat_plugin.cli.demo import Demo
from lmsat_plugin.cli.doctor import Doctor
from lmsat_plugin.cli.efficiency import SampleEfficiency
from lmsat_plugin.cli.emergence import Emergence
from lmsat_plugin.cli.eval import Eval
from lmsat_plugin.cli.export import Export
from lmsat_plugin.cli.fit import Fit
from lmsat_plugin.cli.leaderboard import LeaderboardCommand
from lmsat_plugin.cli.ngram import Ngram
from lmsat_plugin.cli.probes import Probes
from lmsat_plugin.cli.report import Report
from lmsat_plugin.cli.results import Results
from lmsat_plugin.cli.saturation import SaturationCommand
from lmsat_plugin.cli.shape import Shape
from lmsat_plugin.cli.size import Size
from lmsat_plugin.cli.sweep import Sweep
from lmsat_plugin.errors import LmsatError, print_error, wants_traceback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmsat_plugin.cli.command import Command

COMMANDS: tuple[type[Command], ...] = (
    Demo,
    Checkpoints,
    Size,
    Sweep,
    Eval,
    Probes,
    Results,
    SaturationCommand,
    Fit,
    Emergence,
    SampleEfficiency,
    Shape,
    Context,
    Allocate,
    Bottleneck,
    Ngram,
    Report,
    LeaderboardCommand,
    Export,
    Doctor,
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all subcommands."""
    parser = argparse.ArgumentParser(
        prog="lmsat",
        description="Measure saturation of language-model checkpoints inside the LM Evaluation Harness.",
        epilog="LMSAT_DEBUG=1 shows tracebacks, LMSAT_PLUGINS=0 leaves installed plugins out.",
    )
    parser.add_argument("--version", action="version", version=f"lmsat {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for kind in COMMANDS:
        sub = commands.add_parser(
            kind.name,
            help=kind.help,
            description=kind.__doc__,
            add_help=not kind.passes_on,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command = kind()
        command.add_arguments(sub)
        sub.set_defaults(run=command.run, passes_on=kind.passes_on)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code. Bad input is one sentence on standard error and exit code 2."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if hasattr(args, "overrides"):
        # argparse takes them only where they stand together.
        args.overrides += [text for text in rest if not text.startswith("-")]
        rest = [text for text in rest if text.startswith("-")]
    if rest and not args.passes_on:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
        code = args.run(args) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read has had enough. Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except LmsatError as error:
        if wants_traceback():
            raise
        print_error(error)
        return 2
    except KeyboardInterrupt:
        print("lmsat: interrupted", file=sys.stderr)
        return 130
