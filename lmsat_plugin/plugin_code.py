"""Run a plugin's code: what it raises never ends the process, except for a real Ctrl-C, and what hangs is named."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.outside_text import show

_PATIENCE_SECONDS = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def contained(subject: str = "it", *, passing: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Turn SystemExit, and whatever else is no `Exception`, into `LmsatError`, except where a signal asked for it.

    ``subject`` begins the message. Errors of the kinds ``passing`` stay as they are.
    """
    with _noted_signals() as arrived:
        try:
            yield
        except Exception:
            raise
        except BaseException as error:
            if arrived or isinstance(error, passing):
                raise
            reason = f": {first_sentence(error)}" if str(error).strip() else ""
            raise LmsatError(f"{subject} raised {type(error).__name__}{reason}") from error


@contextmanager
def named_if_slow(plugin: str, where: str) -> Iterator[None]:
    """Print the name of a plugin whose code takes more than five seconds."""
    line = (
        f"lmsat: waiting for the plugin '{plugin}' ({where}) for more than {_PATIENCE_SECONDS:g} seconds: "
        "LMSAT_PLUGINS=0 leaves plugins out"
    )
    timer = threading.Timer(_PATIENCE_SECONDS, lambda: show(line, sys.stderr))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Give a list of the signals to end that have arrived; they are handled as before."""
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived  # signals are handled in the main thread alone
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        before[number](number, frame)

    handled = [number for number, handler in before.items() if callable(handler)]
    try:
        for number in handled:
            signal.signal(number, note)
        yield arrived
    finally:
        for number in handled:
            # The plugin may have set a handler of its own.
            if signal.getsignal(number) is note:
                signal.signal(number, before[number])
