"""Commands that run on several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

# Starting takes a process some fifteen seconds; a hang would take for ever.
TIMEOUT = 240


def launch(processes: int, *command: str) -> None:
    """Run a command under torchrun on CPUs; stop all its processes after a time."""
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    port = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *port, "--nproc_per_node", str(processes)]
    with subprocess.Popen(
        [*torchrun, *command],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            _, err = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, err = process.communicate()
            pytest.fail(f"{processes} processes hang:\n{err[-3000:]}")
    assert process.returncode == 0, err[-10_000:]
