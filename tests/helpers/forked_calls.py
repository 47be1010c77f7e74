"""A fork of the test's process in the place of a process of its own, which would import torch again."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ForkedCall:
    """Stands in for a `subprocess.Popen` of a Python that calls a function, which ends it."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.pid, self.returncode = os.fork(), None
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                call()
            os._exit(1)

    def poll(self, options: int = os.WNOHANG) -> int | None:
        if self.returncode is None and (waited := os.waitpid(self.pid, options))[0]:
            self.returncode = os.waitstatus_to_exitcode(waited[1])
        return self.returncode

    def wait(self) -> int | None:
        return self.poll(0)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
