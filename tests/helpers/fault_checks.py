"""What has to hold after a fault: the command has said so, and the next one has mended what is stored."""

from __future__ import annotations

import re
import signal
from collections import Counter
from typing import TYPE_CHECKING

from sweep_outputs import content_of, strays

from lmsat_plugin.sweeps.verification import verify

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from faults import Case, Ended, Fault, Operation


def check_accounted_for(root: Path, operations: Sequence[Operation]) -> None:
    """Assert that every byte and every name below a folder was seen when it was written."""
    sizes: Counter[str] = Counter()
    names = set()
    for operation in operations:
        if operation.kind in ("open", "mkdir"):
            names.add(operation.path)
            if operation.bytes:
                sizes[operation.path] = 0
        elif operation.kind == "write":
            sizes[operation.path] += operation.bytes
        elif operation.kind == "truncate":
            sizes[operation.path] = 0
        elif operation.kind == "rename":
            names.add(operation.other)
            sizes[operation.other] = sizes.pop(operation.path, 0)
        elif operation.kind == "link":
            names.add(operation.path)
    files = {str(path): path.stat().st_size for path in root.rglob("*") if path.is_file()}
    assert {name: sizes[name] for name in files} == files
    assert {str(path) for path in root.rglob("*")} <= names


def complains(output: str) -> bool:
    """Return whether a command said in a sentence what is wrong."""
    return re.search(r"^(lmsat( \[[^]]*\])?: error|Failed|Left): ", output, re.MULTILINE) is not None


def tally(faults: list[Fault], operations: list[Operation]) -> dict[str, int]:
    """Count faults by kind of operation and way."""
    names = (f"{operations[f.number - 1].kind} {f.way}{' that lasts' if f.lasting else ''}" for f in faults)
    return dict(sorted(Counter(names).items()))


def check_disturbed(case: Case, ended: Ended, right: dict[str, object]) -> list[str]:
    """Return what is wrong with how a command ended that met a fault."""
    if case.fault.way == "end":
        # Threads download in another order from time to time.
        return [] if ended.code in (0, -signal.SIGKILL) else [f"was not killed: {ended.code}"]
    said = ["traceback"] if "Traceback" in ended.output else []
    if ended.code == 0:
        # What it has left half-written, the next one removes; what it could not put aside it has named.
        left = [problem for problem in verify(case.root).problems if problem.kind != "stray"]
        unnamed = [problem for problem in left if f"{problem.path}: cannot be put aside" not in ended.output]
        # What is damaged cannot be compared.
        if unnamed or (not left and _stored(case.root, right) != right):
            said.append("exit code 0 with something missing")
    if ended.code and not complains(ended.output):
        said.append("no sentence")
    return said


def check_restarted(case: Case, ended: Ended, right: dict[str, object], expected: int = 0) -> list[str]:
    """Return what is wrong with what is stored after a restart."""
    said = [] if ended.code == expected else [f"the restart ends with {ended.code}: {ended.output}"]
    said += [str(problem) for problem in verify(case.root).problems]
    content = _stored(case.root, right)
    different = [key for key in right.keys() | content.keys() if right.get(key) != content.get(key)]
    return said + [f"different: {key}" for key in different] + [f"left: {path}" for path in strays(case.root)]


def _stored(root: Path, right: dict[str, object]) -> dict[str, object]:
    content = content_of(root)
    # A damaged record of failures that cannot be renamed is replaced, or removed where nothing fails any more.
    content["quarantined"] = sorted({*content["quarantined"], *(n for n in right["quarantined"] if "failures" in n)})
    return content
