"""A sweep over 200 checkpoints in one process: does its memory grow, do files or threads stay open?

Resident memory after the last checkpoint against that after the tenth, and the open files and threads at both.
"""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import common
from sweep_loop import at_each_checkpoint, make_quiz, make_series, sweep_command


def resident() -> int:
    """Return this process' resident memory in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def states(folder: Path, count: int) -> list[tuple[int, int, int]]:
    """Sweep; return memory, open files and threads after each checkpoint."""
    from lmsat_plugin.sweeps.config import load_config
    from lmsat_plugin.sweeps.local import run_sweep

    common.silence()
    found = at_each_checkpoint(
        lambda: (resident(), len(os.listdir("/proc/self/fd")), threading.active_count())  # noqa: PTH208
    )
    summary = run_sweep(load_config(folder / "sweep.yaml"))
    assert summary.measured == count, summary
    return found


def main() -> int:
    count = 30 if common.parse_arguments(__doc__).quick else 200
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_series(folder, count)
        make_quiz(folder / "quiz")
        sweep_command(folder)
        found = common.in_child(states, folder, count)
    tenth, last = found[9], found[-1]
    rows = [
        common.Row(
            f"resident memory after {count} checkpoints, and after 10",
            f"{last[0] / 1024:.0f} MiB",
            f"{tenth[0] / 1024:.0f} MiB",
            last[0] / tenth[0],
            at_most=1.02,
        ),
        common.Row("open files", str(last[1]), str(tenth[1]), last[1] - tenth[1], at_most=0),
        common.Row("threads", str(last[2]), str(tenth[2]), last[2] - tenth[2], at_most=0),
    ]
    return common.report("A long sweep in one process", rows)


if __name__ == "__main__":
    raise SystemExit(main())
