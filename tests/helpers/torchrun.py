"""Commands that run on several processes."""

from __future__ import annotations

import signal
import socket
import time

import pytest
from warm_lmsat import shared

# A hang would take for ever.
TIMEOUT = 240
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def launch(processes: int, script: str, *arguments: str) -> None:
    """Run a script as torchrun does, on processes that need not import torch and lm-eval; stop them after a time."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    running = [
        shared().start(
            script, *arguments,
            **ENVIRONMENT, **place, WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes),
            RANK=str(rank), LOCAL_RANK=str(rank),
        )
        for rank in range(processes)
    ]  # fmt: skip
    deadline = time.monotonic() + TIMEOUT
    # One that fails leaves the others waiting.
    while (codes := [process.returncode for process in running]) != [0] * processes:
        if any(codes) or time.monotonic() > deadline:
            for process in running:
                process.send(signal.SIGKILL)
            pytest.fail(f"exit codes {codes}:\n" + "\n".join(process.output[-5000:] for process in running))
        time.sleep(0.05)
