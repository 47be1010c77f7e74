"""``python tests/helpers/killing.py CASE``: kill a command of lmsat at random instants, and run it to its end again.

CASE is the JSON of a `Case`. Each command runs in a fork of this process, which has imported everything, so that the
instants of the kills fall into the work and not into the imports. Half of them are drawn from its time, the others from
its changes of files. Whatever is there after a kill has to be whole, and after the next run all has to be as after a
run that nobody killed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DATE = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d[:-]\d\d(?:[:-]\d\d(?:[.]\d+)?)?")
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "tempfile.mkstemp", "fcntl.flock"}
NOT_WHOLE = (".part", ".incomplete", ".quarantined")
"""Endings of files that are there only while something is at work, or that were damaged."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command, and how often it is killed."""

    arguments: list[str]
    output: str
    """The folder with all that it writes."""
    kills: int
    at_once: int = 1
    """Processes that run the command at the same time, and are killed together."""
    warm_up: tuple[str, ...] = ()
    """A command that this process runs itself before, elsewhere, to import and to compile what others then need not."""
    patches: tuple[tuple[str, str, Any], ...] = ()
    """Module, name and value of constants that are too large for a short run."""
    seed: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Commands:
    """Processes that run a command."""

    def __init__(self, case: Case, log: Path) -> None:
        self._changed, writing = os.pipe()
        self._running = [_fork(case, writing, log) for _ in range(case.at_once)]
        os.close(writing)

    def changes(self, most: int | None = None) -> int:
        """Wait for so many changes of files in the output folder, or until all has ended; return how many came."""
        seen = 0
        while (most is None or seen < most) and os.read(self._changed, 1):
            seen += 1
        return seen

    def end(self) -> list[int]:
        """Wait for the exit codes."""
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self._running]
        os.close(self._changed)
        return codes

    def kill(self) -> list[int]:
        """Kill what is still at work, and return the exit codes, -9 for each that was."""
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)
        return self.end()


def _fork(case: Case, writing: int, log: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    with contextlib.suppress(BaseException):
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        os.set_blocking(writing, False)

        def watch(event: str, args: tuple[Any, ...]) -> None:
            written = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
            if (written or event in CHANGES) and (event == "fcntl.flock" or case.output in str(args[0])):
                with contextlib.suppress(BlockingIOError):
                    os.write(writing, b".")

        from lmsat_plugin.cli.main import main

        sys.addaudithook(watch)
        code = main(case.arguments)
    os._exit(code)


def content_of(output: Path) -> dict[str, Any]:
    """Return what is in a folder by path, with other dates replaced by the same one; raise for what is there twice.

    Of a result the values, of other files all bytes. What a sweep keeps for itself is left out.
    """
    content: dict[str, Any] = {}
    for path in sorted(output.rglob("*")):
        name = DATE.sub(b"DATE", str(path.relative_to(output)).encode()).decode()
        if not path.is_file() or name.startswith(".lmsat/") or name.endswith(NOT_WHOLE):
            continue
        data = path.read_bytes()
        if path.name.startswith("results_"):
            results = json.loads(data)["results"]
            own = {f"{task}/{key}": value for task, entry in results.items() for key, value in entry.items()}
        else:
            own = {"": DATE.sub(b"DATE", data)}
        for key, value in own.items():
            # Values of one checkpoint may be in several files, each once.
            assert f"{name}/{key}" not in content, f"{name} {key} is there twice"
            content[f"{name}/{key}"] = value
    return content


def strays_of(output: Path) -> list[str]:
    """Return what is there only while something is at work, or was damaged by a kill."""
    paths = [path for path in output.rglob("*") if path.name not in (".lock",)]
    strays = [path for path in paths if path.name.endswith(NOT_WHOLE) or path.name.startswith((".used-", ".trash-"))]
    strays += [path for path in paths if path.parent.name == "claims" or path.name.startswith(("tmp", "training_"))]
    # One download is kept, where any is.
    strays += sorted((output / ".lmsat" / "downloads").glob("[!.]*/[!.]*"))[1:]
    return [str(path.relative_to(output)) for path in strays]


def difference(content: dict[str, Any], reference: dict[str, Any]) -> tuple[str, Any, Any]:
    """Return the first difference: where, what is there, what should be."""
    name = min(name for name in content.keys() | reference if content.get(name) != reference.get(name))
    one, other = content.get(name), reference.get(name)
    if isinstance(one, bytes) and isinstance(other, bytes):
        start = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
        one, other = (text[max(0, start - 200) : start + 200] for text in (one, other))
    return name, one, other


def kill_and_run_again(case: Case, log: Path) -> str:
    """Do so until it was killed often enough; return what happened. Raise AssertionError for a wrong result."""
    from lmsat_plugin.sweeps.verification import verify

    output, draw = Path(case.output), random.Random(case.seed)

    def check_end(what: str) -> dict[str, Any]:
        content, strays = content_of(output), strays_of(output)
        assert not strays, (what, strays)
        if is_sweep:
            problems = verify(output).problems
            assert not problems, (what, problems)
        return content

    begun = time.monotonic()
    commands = Commands(case, log)
    changes = commands.changes()
    assert not any(commands.end()), log.read_text()
    whole = time.monotonic() - begun
    is_sweep = (output / ".lmsat").exists()
    reference = check_end("undisturbed")
    shutil.rmtree(output)
    met = ended = runs = 0
    instants: list[str] = []
    while met < case.kills:
        for _ in range(draw.randint(1, 3)):
            if met >= case.kills:
                break
            commands = Commands(case, log)
            if draw.random() < 0.5:
                instants.append(f"{(seconds := draw.uniform(0, whole)):.4f} s")
                time.sleep(seconds)
            else:
                instants.append(f"change {(number := draw.randint(1, changes))} of {changes}")
                commands.changes(number)
                time.sleep(draw.choice([0, draw.uniform(0, 0.003)]))
            killed = sum(code == -signal.SIGKILL for code in commands.kill())
            met, ended = met + killed, ended + case.at_once - killed
            where = f"seed {case.seed}, after kills at {instants}"
            there = content_of(output) if output.exists() else {}
            kept = {name: value for name, value in there.items() if not Path(name).name.startswith("training_")}
            assert kept.items() <= reference.items(), (where, difference({**reference, **kept}, reference))
        commands = Commands(case, log)
        commands.changes()
        codes = commands.end()
        runs += 1
        assert not any(codes), (where, codes, log.read_text()[-2000:])
        content = check_end(where)
        assert content == reference, (where, difference(content, reference))
        # A page or a folder for the Hub is also written over an earlier one.
        if is_sweep or draw.random() < 0.5:
            shutil.rmtree(output)
            instants = []
        else:
            instants = ["(over what was there)"]
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in used)
    work = f"{changes} changes and {whole:.2f} s"
    return f"{met} kills in {work}, {ended} ended before, {runs} runs to the end, {cpu:.1f} s of CPU"


def main() -> None:
    from tqdm import tqdm

    from lmsat_plugin.cli.main import main as lmsat

    # Its own is one for all forks of this process: whoever is killed while it holds it stops all others.
    tqdm.set_lock(threading.RLock())
    case = Case(**json.loads(sys.argv[1]))
    for module, name, value in case.patches:
        setattr(importlib.import_module(module), name, value)
    if case.warm_up:
        with contextlib.redirect_stdout(sys.stderr):
            assert lmsat(case.warm_up) == 0
        gc.freeze()
    print(kill_and_run_again(case, Path(f"{case.output}.log")))


if __name__ == "__main__":
    main()
