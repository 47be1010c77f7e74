"""``python tests/kill_sweep.py CONFIG KILLS AT_ONCE``: run a sweep, kill it again and again, and let it end.

Each sweep runs in a fork of this process, which has imported everything, so that the instants of the kills fall
into the work and not into the imports. Prints how many kills met a sweep at work.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from lmsat_plugin.harness.command import quiet
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.local import run_sweep


def start(config: Path) -> int:
    """Fork a process that runs the sweep; return its id."""
    pid = os.fork()
    if pid == 0:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        summary = run_sweep(load_config(config))
        os._exit(1 if summary.failed or summary.elsewhere else 0)
    return pid


def main(config: Path, kills: int, at_once: int) -> None:
    """Kill and start again, then let it end."""
    quiet()
    output = load_config(config).output
    numbers = random.Random(0)
    begun = time.monotonic()
    assert os.waitpid(start(config), 0)[1] == 0
    whole = time.monotonic() - begun
    shutil.rmtree(output)
    met = finished = 0
    while met < kills:
        processes = [start(config) for _ in range(at_once)]
        time.sleep(numbers.uniform(0.02, whole))
        states = []
        for pid in processes:
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
                states.append(os.waitpid(pid, 0)[1])
        met += sum(os.WIFSIGNALED(state) for state in states)
        if not states:
            finished += 1
            shutil.rmtree(output)
    processes = [start(config) for _ in range(at_once)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in processes]
    print(f"{met} kills met a sweep at work, {finished} sweeps ended before; exit codes at the end: {codes}")
    sys.exit(any(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
