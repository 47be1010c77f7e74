"""Commands of lmsat of which the n-th operation on files fails, and what such a command has left.

``python tests/helpers/faults.py CASES`` runs such commands, given as JSON, in a process with the library of
`preloaded`.
"""

from __future__ import annotations

import copy
import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from warm_lmsat import WarmLmsat

WAYS = ("error", "half", "end")
"""An operation is not done, is half done or reports an error though it is done, or the process is killed within it."""
READING = ("look", "read", "list")
_measured: dict[tuple, object] = {}
_once = False
_ERRNOS = {
    "open": (errno.ENOSPC, errno.EIO, errno.EACCES),
    "write": (errno.ENOSPC, errno.EIO),
    "sync": (errno.EIO, errno.ENOSPC),
    "rename": (errno.EIO, errno.EACCES),
    "mkdir": (errno.ENOSPC, errno.EIO, errno.EACCES),
    "unlink": (errno.EIO, errno.EACCES),
}


@dataclass(frozen=True)
class Operation:
    """Something that a process did to a file."""

    kind: str
    bytes: int
    """That were written; for `open`, whether the file was emptied."""
    path: str
    other: str
    """The new name, of what was renamed."""


@dataclass(frozen=True)
class Fault:
    """What happens to the n-th operation."""

    number: int = 0
    way: str = ""
    errno: int = 0
    lasting: bool = False
    """Whether every later operation that writes fails, too."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    output: str
    operations: list[Operation]


@dataclass(frozen=True)
class Case:
    """A command with a fault below a folder."""

    root: Path
    arguments: Sequence[str]
    fault: Fault = Fault()

    def file(self, kind: str) -> Path:
        """Return the file beside the folder with the operations below it, the output, or the exit code."""
        return self.root.with_name(f"{self.root.name}.{kind}")

    def ended(self) -> Ended:
        """Return how it has ended."""
        lines = [line.split("\t") for line in self.file("operations").read_text().splitlines()]
        operations = [Operation(kind, int(size), path, other) for kind, size, path, other in lines]
        return Ended(int(self.file("code").read_text()), self.file("output").read_text(), operations)


def preloaded(folder: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of processes whose operations on files can be counted and made to fail."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler, cc")
    library = folder / "faulty_files.so"
    source = Path(__file__).with_name("faulty_files.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return {**environment, "LD_PRELOAD": str(library)}


def run_all(warm: WarmLmsat, cases: Sequence[Case], *, once: bool = False) -> list[Ended]:
    """Run commands one after another, in one process as far as they do not end it.

    With ``once``, results are those that a fork's parent has measured, where it has.
    """
    for case in cases:
        case.file("code").unlink(missing_ok=True)
    batch = [[str(case.root), list(case.arguments), asdict(case.fault)] for case in cases]
    # Each sweep leaves a thread.
    for start in range(0, len(batch), 100):
        running = warm.start(__file__, json.dumps([once, batch[start : start + 100]]))
        running.wait(timeout=3000)
        assert running.returncode == 0, running.output
    return [case.ended() for case in cases]


def first_command(arguments: Sequence[str], *, once: bool) -> list[str]:
    """Return what a process runs before it is forked, for `run_all` with the same ``once``."""
    return [__file__, json.dumps([once, [["", list(arguments), asdict(Fault())]]])]


def faults_of(operations: Sequence[Operation]) -> Iterator[Fault]:
    """Yield every fault that can meet these operations."""
    for number, operation in enumerate(operations, start=1):
        kind = operation.kind
        for way in ("error",) if kind in READING else WAYS:
            codes = _ERRNOS.get(kind, (errno.EIO,))
            for code in codes[:1] if way == "end" else codes:
                yield Fault(number, way, code)
        if kind in ("open", "write", "mkdir", "sync"):
            yield Fault(number, "error", errno.ENOSPC, lasting=True)


def sample_of(faults: Sequence[Fault], operations: Sequence[Operation], each: int = 1) -> list[Fault]:
    """Return so many faults of each kind of operation in each way, from all over the command."""
    groups: dict[tuple[str, str, bool], list[Fault]] = {}
    for fault in faults:
        groups.setdefault((operations[fault.number - 1].kind, fault.way, fault.lasting), []).append(fault)
    chosen = []
    for place, group in enumerate(groups.values()):
        # Another place in each group, so that they are not all at the beginning.
        chosen += [
            group[(place * len(group) // len(groups) + turn * len(group) // each) % len(group)] for turn in range(each)
        ]
    return chosen


def without_waiting() -> None:
    """Let nothing in this process wait for trouble to pass."""
    from lmsat_plugin import passing
    from lmsat_plugin.sweeps import job_runner, transfers

    passing.PAUSES = (0.0,) * len(passing.PAUSES)
    passing._LONGEST_PAUSE = 0.0
    job_runner._POLL_SECONDS = transfers._POLL_SECONDS = 0.01
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.02))


def measure_once() -> None:
    """Let this process and its forks measure a checkpoint once: what becomes of its results is another matter."""
    from lmsat_plugin.sweeps.job_evaluator import JobEvaluator

    if _measured:
        return
    load, evaluate = JobEvaluator.load, JobEvaluator.evaluate
    loading: list[tuple] = []

    def evaluate_once(self, job, batch, names):
        if not _once:
            load(self, *loading[-1])
            return evaluate(self, job, batch, names)
        key = job.label, batch, tuple(names)
        if key not in _measured:
            load(self, *loading[-1])
            _measured[key] = evaluate(self, job, batch, names)
        return copy.deepcopy(_measured[key])

    JobEvaluator.load = lambda self, *arguments: loading.append(arguments)
    JobEvaluator.evaluate = evaluate_once


def _main(once: bool, batch: list) -> None:
    from lmsat_plugin import files
    from lmsat_plugin.sweeps import stored

    global _once
    _once = once
    without_waiting()
    if once:
        measure_once()
    for root, arguments, told in batch:
        # What a process remembers of files, another one would not know.
        files._tidied.clear()
        stored._fault_of_arrays.cache_clear()
        if root:
            _run_case(Case(Path(root), arguments, Fault(**told)))
        else:
            _main_of_lmsat(arguments)


def _run_case(case: Case) -> None:
    """Run a command, with its output in a file, and note its exit code."""
    with case.file("output").open("w") as file:
        kept = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        code = 0
        if case.fault.way == "end":
            if (pid := os.fork()) == 0:
                os._exit(_run_armed(case))
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        else:
            code = _run_armed(case)
        for number, handle in zip((1, 2), kept, strict=True):
            os.dup2(handle, number)
            os.close(handle)
    case.file("code").write_text(str(code))


def _run_armed(case: Case) -> int:
    arm = ctypes.CDLL(None).faults_arm
    fault, log = case.fault, str(case.file("operations")).encode()
    way, number = ("", *WAYS).index(fault.way), ctypes.c_long(fault.number)
    arm(str(case.root).encode(), number, way, fault.errno, fault.lasting, log)
    try:
        return _main_of_lmsat(case.arguments)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        arm(b"", ctypes.c_long(0), 0, 0, 0, os.devnull.encode())
        sys.stdout.flush()
        sys.stderr.flush()


def _main_of_lmsat(arguments: Sequence[str]) -> int:
    from lmsat_plugin.cli.main import main

    return main(arguments)


if __name__ == "__main__":
    # What is measured belongs to the module, which forks share.
    import faults

    faults._main(*json.loads(sys.argv[1]))
