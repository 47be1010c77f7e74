"""The command ``lmsat``: a sibling of ``lm_eval``."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from lmsat_plugin.cli.guide import guide
from lmsat_plugin.cli.parser import build_parser, refuse_unknown
from lmsat_plugin.errors import LmsatError, each_warning_once, print_error, print_printable_warnings, wants_traceback
from lmsat_plugin.outside_text import shortened

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What writing to a file, where the standard output goes, may fail with."""


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
    if args.command is None:
        sys.stdout.write(guide())
        return 0
    if rest and not args.passes_on:
        refuse_unknown(rest, args.command, parser)
    args.rest = rest
    try:
        with nullcontext() if args.repeats_warnings else each_warning_once():
            code = args.execute(args) or 0
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
