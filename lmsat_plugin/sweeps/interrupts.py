"""Ctrl-C, SIGTERM, and a parent that ended: they interrupt a sweep at once, but not while a result file is written."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def end_with_parent() -> None:
    """Have this process interrupted when the one that started it, and holds the other end of its input, has ended."""

    def wait() -> None:
        while os.read(0, 1 << 10):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="lmsat-parent").start()


class Interrupts:
    """Turns both signals into KeyboardInterrupt, except within `held`, where they wait."""

    def __init__(self) -> None:
        self._depth = 0
        self._asked = False

    def _handle(self, number: int, frame: Any) -> None:
        self._asked = True
        if not self._depth:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise an interrupt that was lost: Python ignores exceptions in finalisers, and a signal may arrive in one."""
        if self._asked and not self._depth:
            raise KeyboardInterrupt

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals inside. Only the main thread gets any."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._handle) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay interrupts until the code inside has finished."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            self.check()
