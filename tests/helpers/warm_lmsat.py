"""Run commands of lmsat, and scripts, in processes of their own that need not import torch and lm-eval again.

``python tests/helpers/warm_lmsat.py`` imports them once, and runs each command that it reads in a fork of itself.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass
class Running:
    """A command at work."""

    pid: int
    stdout: Path
    stderr: Path
    code: Path
    """Where its exit code is written when it ends; negative for a signal."""

    @property
    def returncode(self) -> int | None:
        return int(self.code.read_text()) if self.code.exists() else None

    @property
    def output(self) -> str:
        return self.stdout.read_text() + self.stderr.read_text()

    def wait(self, timeout: float = 300) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.returncode) is None:
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)
        return code

    def first_line(self, timeout: float = 100) -> str:
        """Wait for the first line of its output."""
        deadline = time.monotonic() + timeout
        while "\n" not in (text := self.stdout.read_text()):
            assert self.returncode is None, text + self.stderr.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return text.splitlines()[0]

    def send(self, number: int) -> None:
        """Send a signal; a process that has ended meets none."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class WarmLmsat:
    """Runs the arguments of ``lmsat``, or a script with its arguments.

    Args:
        folder: For their output.
        environment: Of the commands; by default that of this process.
        first: A command that is run before the others are forked, so that they find in place what it has made ready.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, first: Sequence[str] = ()) -> None:
        self._folder, self._started = folder, []
        self._process = subprocess.Popen(
            [sys.executable, __file__, *first],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def start(self, *arguments: str, **environment: str) -> Running:
        """Start a command, with something more in its environment."""
        names = (f"{len(self._started)}.{kind}" for kind in ("stdout", "stderr", "code"))
        stdout, stderr, code = (self._folder / name for name in names)
        stdout.touch()
        stderr.touch()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([arguments, environment, *map(str, (stdout, stderr, code))]) + "\n")
        self._process.stdin.flush()
        running = Running(int(self._process.stdout.readline()), stdout, stderr, code)
        self._started.append(running)
        return running

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        running = self.start(*arguments)
        code = running.wait()
        return subprocess.CompletedProcess(arguments, code, running.stdout.read_text(), running.stderr.read_text())

    def close(self) -> None:
        """Kill what is still at work."""
        for running in self._started:
            running.send(signal.SIGKILL)
        self._process.kill()
        self._process.communicate()


@functools.cache
def shared() -> WarmLmsat:
    """Return the one that the tests of a session share."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    warm = WarmLmsat(Path(folder.name))
    atexit.register(warm.close)
    return warm


def _serve() -> None:
    import lmsat_plugin.sweeps.local  # noqa: F401
    from lmsat_plugin.cli.main import main

    if first := sys.argv[1:]:
        with contextlib.redirect_stdout(sys.stderr):
            _run(main, first)
    # To look through all that is imported takes a third of a short sweep.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        arguments, environment, stdout, stderr, code = json.loads(line)
        if os.fork() == 0:
            os.environ.update(environment)
            _supervise(main, arguments, [stdout, stderr], Path(code))


def _supervise(main, arguments: list[str], streams: list[str], code: Path) -> None:
    """Fork the process of a command, tell its id, and write its exit code when it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        part = code.with_suffix(".part")
        part.write_text(str(status))
        part.rename(code)
        os._exit(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    exit_code = 1
    try:
        exit_code = _run(main, arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)


def _run(main, arguments: list[str]) -> int:
    """Run a command or a script, and return its exit code."""
    try:
        if arguments[0].endswith(".py"):
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
            return 0
        sys.argv = ["lmsat", *arguments]
        return main(arguments)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    _serve()
