"""The exceptions of lmsat, for what the user can mend and what may pass, and how commands show them: as a sentence."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from lmsat_plugin.outside_text import printable

DIVERGED = "diverged: "
"""How the reason of each failure begins that is a divergence."""
_previous_hook: Callable[..., Any] | None = None
"""What `sys.excepthook` was before it was wrapped."""


class LmsatError(Exception):
    """Something the user can mend. The message says what is wrong, which value, and what to do next."""

    exit_code = 2
    """Of a command that ends with it."""


class DivergedError(LmsatError):
    """Weights or a loss that are not finite: what became of the training run, which measuring again does not change.

    Args:
        what: What is not finite: the layer, or the document.
        weights: The first weight that is not finite, and where it is; None where the weights are finite or unknown.
    """

    def __init__(self, what: str, weights: str | None = None) -> None:
        self.what = what
        advice = "the checkpoint's weights or its precision are broken; load it with dtype=float32 or leave it out"
        if weights is not None:
            advice = f"{weights}; leave the checkpoint out"
        super().__init__(f"{DIVERGED}{what}: {advice}")


class PassingError(LmsatError):
    """Trouble from outside that may pass by itself, and is worth another try later: nothing that is asked for is wrong.

    Args:
        message: As of `LmsatError`.
        source: What the trouble comes from, such as ``the Hub``: what has it at once may have it for one reason.
        retry_after: The seconds after which another try was said to be welcome.
    """

    tries: int = 8
    """How often something is tried at most before it is left."""

    def __init__(self, message: str, *, source: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.source, self.retry_after = source, retry_after


class BrokenDeviceError(LmsatError):
    """A GPU that this process cannot use any more, though another may: it counts as the process' death."""

    exit_code = 134
    """As of a process that has aborted, which is replaced."""


class TooLittleTextError(LmsatError):
    """A corpus has less text beside what is measured than is asked for."""


class UnwritableError(LmsatError):
    """A folder that this user may not write: no fault of what is measured, and no waiting helps."""


def first_sentence(error: BaseException) -> str:
    """Return the first non-empty line of an error's message, or its type's name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def wants_traceback() -> bool:
    """Return whether ``LMSAT_DEBUG`` asks for tracebacks."""
    return os.environ.get("LMSAT_DEBUG", "0") not in ("", "0")


def print_error(error: LmsatError) -> None:
    """Print the sentence on standard error, with the process that says it where there are several."""
    rank = os.environ.get("RANK")
    process = f" [process {rank}]" if rank is not None and os.environ.get("WORLD_SIZE", "1") != "1" else ""
    print(f"lmsat{process}: error: {printable(str(error))}", file=sys.stderr, flush=True)


def print_printable_warnings() -> None:
    """Keep control characters out of what lmsat's own modules log, from now on."""
    make = logging.getLogRecordFactory()
    if getattr(make, "__module__", None) == __name__:
        return

    def make_printable(*arguments: Any, **keywords: Any) -> logging.LogRecord:
        record = make(*arguments, **keywords)
        if record.name.partition(".")[0] == "lmsat_plugin":
            record.msg, record.args = printable(record.getMessage()), None
        return record

    logging.setLogRecordFactory(make_printable)


@contextmanager
def each_warning_once() -> Iterator[None]:
    """Print what lmsat's own modules log the first time that it is logged, and not again."""
    handlers = [handler for handler in (*logging.getLogger().handlers, logging.lastResort) if handler is not None]
    filters = [_FirstTime() for _ in handlers]
    for handler, first_time in zip(handlers, filters, strict=True):
        handler.addFilter(first_time)
    try:
        yield
    finally:
        for handler, first_time in zip(handlers, filters, strict=True):
            handler.removeFilter(first_time)


class _FirstTime(logging.Filter):
    def __init__(self) -> None:
        super().__init__("lmsat_plugin")
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        is_new = not super().filter(record) or text not in self._said
        self._said.add(text)
        return is_new


def sentence_for_lm_eval_command() -> None:
    """Make ``lm_eval`` print an uncaught `LmsatError` as one sentence; the exit code stays 1.

    `sys.excepthook` is wrapped once, however often this is called. Nothing is changed in a notebook or in somebody
    else's program, where a traceback is what one wants.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = getattr(spec, "name", "") or ""
    if not module.startswith("lm_eval") and Path(sys.argv[0]).stem not in ("lm_eval", "lm-eval"):
        return
    print_printable_warnings()
    global _previous_hook
    if _previous_hook is None:
        _previous_hook, sys.excepthook = sys.excepthook, _show


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, LmsatError) and not wants_traceback():
        print_error(error)
    else:
        (_previous_hook or sys.__excepthook__)(kind, error, trace)
