"""The command ``lmsat``: a sibling of ``lm_eval``."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lmsat_plugin.cli.allocate import AllocateCommand
from lmsat_plugin.cli.bottleneck import BottleneckCommand
from lmsat_plugin.cli.checkpoints import CheckpointsCommand
from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.context import ContextCommand
from lmsat_plugin.cli.convert import ConvertCommand
from lmsat_plugin.cli.demo import DemoCommand
from lmsat_plugin.cli.doctor import DoctorCommand
from lmsat_plugin.cli.efficiency import EfficiencyCommand
from lmsat_plugin.cli.emergence import EmergenceCommand
from lmsat_plugin.cli.eval import EvalCommand
from lmsat_plugin.cli.export import ExportCommand
from lmsat_plugin.cli.fit import FitCommand
from lmsat_plugin.cli.leaderboard import LeaderboardCommand
from lmsat_plugin.cli.ngram import NgramCommand
from lmsat_plugin.cli.probes import ProbesCommand
from lmsat_plugin.cli.report import ReportCommand
from lmsat_plugin.cli.results import ResultsCommand
from lmsat_plugin.cli.saturation import SaturationCommand
from lmsat_plugin.cli.shape import ShapeCommand
from lmsat_plugin.cli.size import SizeCommand
from lmsat_plugin.cli.sweep import SweepCommand
from lmsat_plugin.cli.verify import VerifyCommand
from lmsat_plugin.errors import LmsatError, print_error, print_printable_warnings, wants_traceback
from lmsat_plugin.outside_text import printable, shortened
from lmsat_plugin.version import __version__

COMMANDS: tuple[type[Command], ...] = (
    DemoCommand,
    CheckpointsCommand,
    ConvertCommand,
    SizeCommand,
    SweepCommand,
    EvalCommand,
    ProbesCommand,
    ResultsCommand,
    VerifyCommand,
    SaturationCommand,
    FitCommand,
    EmergenceCommand,
    EfficiencyCommand,
    ShapeCommand,
    ContextCommand,
    AllocateCommand,
    BottleneckCommand,
    NgramCommand,
    ReportCommand,
    LeaderboardCommand,
    ExportCommand,
    DoctorCommand,
)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What writing to a file, where the standard output goes, may fail with."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all subcommands."""
    parser = _Parser(
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


def _open_closed_streams() -> None:
    """Give a process that was started with closed streams others that go nowhere, and no file their numbers."""
    if sys.stdout is None or sys.stderr is None:
        while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(handle)
        sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115 - for as long as the process lives
        sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115


def _discard_output() -> None:
    """Let what is still to be printed go nowhere: Python would complain once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code. Bad input is one sentence on standard error and exit code 2."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # Names of files may hold bytes that are no text, and a terminal may know ASCII alone.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    print_printable_warnings()
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if hasattr(args, "words"):
        # argparse accepts them only where they stand together.
        args.words += [text for text in rest if not text.startswith("-")]
        rest = [text for text in rest if text.startswith("-")]
    if rest and not args.passes_on:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
        code = args.run(args) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has closed the pipe.
        _discard_output()
        return 0
    except LmsatError as error:
        if wants_traceback():
            raise
        print_error(error)
        return error.exit_code
    except OSError as error:
        if error.errno in _FULL and error.filename is None and not wants_traceback():
            _discard_output()
            print_error(LmsatError(f"the output cannot be written ({error.strerror}): free space or write elsewhere"))
            return 2
        # A name that the system does not take, a folder without rights: what no other sentence was made of.
        if wants_traceback() or error.filename is None:
            raise
        print_error(LmsatError(f"{shortened(error.filename)} cannot be used ({error.strerror}): correct its name"))
        return 2
    except KeyboardInterrupt:
        print("lmsat: interrupted", file=sys.stderr)
        return 130
