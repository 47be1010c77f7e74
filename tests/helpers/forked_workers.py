"""``python tests/helpers/forked_workers.py ARGUMENTS``: a command of lmsat whose workers are forks of it.

A worker that starts anew imports torch and lm-eval, which takes longer than its work.
"""

from __future__ import annotations

import os
import sys
import traceback
from types import SimpleNamespace
from typing import TYPE_CHECKING

from lmsat_plugin.cli.main import main
from lmsat_plugin.sweeps import processes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Fork:
    """Stands in for a `subprocess.Popen` of ``python -m lmsat_plugin.cli``."""

    _inputs: list[int] = []
    """Our ends of the inputs of all workers, of which one that held another's would keep it alive."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], **_: object) -> None:
        assert list(command[:3]) == [sys.executable, "-m", "lmsat_plugin.cli"]
        stdin, our_end = os.pipe()
        stdout, writing = os.pipe()
        self._inputs.append(our_end)
        self.pid, self._code = os.fork(), None
        if self.pid == 0:
            for end in self._inputs:
                os.close(end)
            _run(command[3:], env, {0: stdin, 1: writing})
        os.close(stdin)
        os.close(writing)
        self.stdout = os.fdopen(stdout, errors="replace")

    def poll(self) -> int | None:
        if self._code is None and (waited := os.waitpid(self.pid, os.WNOHANG))[0]:
            self._code = os.waitstatus_to_exitcode(waited[1])
        return self._code


def _run(arguments: Sequence[str], environment: Mapping[str, str], streams: Mapping[int, int]) -> None:
    """Run a command in this process, and end it."""
    code = 1
    try:
        for number, end in streams.items():
            os.dup2(end, number)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        os.environ.update(environment)
        code = main(list(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    processes.subprocess = SimpleNamespace(Popen=Fork, PIPE=None)
    raise SystemExit(main(sys.argv[1:]))
