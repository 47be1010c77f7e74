"""A launch of two processes of which one dies, raises alone, or is interrupted: it ends, and records no failure."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sweep_outputs import files_of, strays
from torchrun import ENVIRONMENT
from warm_lmsat import Running, shared

from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.sweeps.launch import Launch
from lmsat_plugin.sweeps.lifeline import GRACE_SECONDS, WAITING_SECONDS

# What process 1 does when the tasks are evaluated on step10.
SCRIPT = """
import datetime, os, signal, socket, sys, time
from lmsat_plugin.cli.main import main
from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
from lmsat_plugin.sweeps import launch, lifeline

lifeline.GRACE_SECONDS = 0.5
if sys.argv[1] in ("hangs", "stops"):
    lifeline.WAITING_SECONDS, lifeline._BEAT_SECONDS = 1.0, 0.2
if sys.argv[1] == "orders late":
    launch._PATIENCE = datetime.timedelta(seconds=2)
evaluate = CheckpointEvaluator.evaluate
load = CheckpointEvaluator.load

def load_late(self, folder, **keywords):
    if sys.argv[1] == "orders late" and os.environ["RANK"] == "0" and keywords["revision"] == "step0":
        # Between two orders: what follows is not asked for before.
        real = launch.Launch.call
        def call(self, *arguments):
            launch.Launch.call = real
            time.sleep(4)
            return real(self, *arguments)
        launch.Launch.call = call
    return load(self, folder, **keywords)

CheckpointEvaluator.load = load_late

def patched(self, *arguments, **keywords):
    if os.environ["RANK"] == sys.argv[2] and self.lm.revision == "step10":
        if sys.argv[1] == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[1] == "stops":
            sys.argv[1] = ""
            os.kill(os.getpid(), signal.SIGSTOP)
        if sys.argv[1] == "hangs":
            time.sleep(3)
        if sys.argv[1] == "raises":
            raise ValueError("no such thing here")
        if sys.argv[1] == "lacks memory":
            self.lm.loglikelihood = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("CUDA out of memory"))
        if sys.argv[1] == "waits":
            print("at step10", flush=True)
            time.sleep(60)
    return evaluate(self, *arguments, **keywords)

class Mute(socket.socket):
    def sendall(self, *arguments):
        pass

def connect(*arguments, connect=socket.create_connection, **keywords):
    if sys.argv[1] == "cannot connect":
        raise ConnectionRefusedError
    time.sleep(1)
    connection = connect(*arguments, **keywords)
    return Mute(fileno=connection.detach()) if sys.argv[1] == "is not heard" else connection

if "connect" in sys.argv[1] or "heard" in sys.argv[1]:
    lifeline._ACCEPT_SECONDS = 0.3
    socket.create_connection = connect
CheckpointEvaluator.evaluate = patched
raise SystemExit(main(["sweep", *sys.argv[3:]]))
"""


@pytest.fixture
def launch(tmp_path, configure):
    """Return a function that starts a sweep on two processes, of which one does something at step10."""
    script, started = tmp_path / "misbehave.py", []
    script.write_text(SCRIPT)
    config = str(configure(device=None, tasks=["lmsat_loss"]))

    def launch(what: str, rank: int = 1) -> list[Running]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        size = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        running = [
            shared().start(
                str(script), what, str(rank), config, **ENVIRONMENT, **place, **size, RANK=str(n), LOCAL_RANK=str(n)
            )
            for n in range(2)
        ]
        started.extend(running)
        return running

    yield launch
    for process in started:
        process.send(signal.SIGKILL)


def ends(processes: list[Running], seconds: float) -> list[int]:
    """Wait until step0 is measured, and no longer than so many seconds more until the processes have ended."""
    processes[0].first_line()
    begun = time.monotonic()
    codes = [process.wait(timeout=60) for process in processes]
    assert time.monotonic() - begun < seconds, [process.output for process in processes]
    return codes


def claims(output: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in output.rglob("claims/*.json")]


def test_a_process_that_dies_ends_the_launch_and_its_checkpoint_comes_last(launch, configure, tmp_path, capsys):
    out = tmp_path / "out"
    for rank in (1, 0):
        processes = launch("dies", rank)
        if rank:
            codes = ends(processes, 15)
            assert "error: process 1 of the launch is gone: start the sweep again" in processes[0].output, processes[
                0
            ].output
        else:
            codes = [process.wait(timeout=60) for process in processes]
        assert codes[rank] == -signal.SIGKILL
        assert codes[1 - rank] > 0
        assert "Traceback" not in processes[1 - rank].output
        assert {Path(path).parts[1] for path in files_of(out)} == {"step0"}
        assert not list(out.rglob("failures.json"))
    assert len(claims(out)) == 1

    assert main(["sweep", str(configure(tasks=["lmsat_loss"]))]) == 0
    printed = capsys.readouterr()
    assert "run step10: measuring it has ended 2 processes or launches" in printed.err
    assert printed.out.index("run step100: ") < printed.out.index("run step10: ")
    assert len(files_of(out)) == 3
    assert not strays(out)


def test_a_process_that_raises_alone_ends_the_launch_with_its_sentence(launch, tmp_path):
    assert GRACE_SECONDS < 8, "the launch is to end within ten seconds"
    processes = launch("raises")
    codes = ends(processes, 12)
    assert all(code > 0 for code in codes), [process.output for process in processes]
    assert "process 1 of the launch failed, and the others wait for it (no such thing here)" in processes[0].output
    assert not list((tmp_path / "out").rglob("failures.json"))
    assert [claim["at"] for claim in claims(tmp_path / "out")] == ["run step10"]


def test_a_process_that_lacks_memory_alone_does_not_begin_again_alone(launch, quiz, configure, tmp_path):
    """The others would wait for it in the collectives that it has behind it."""
    configure(device=None, tasks=["quiz"], include_path=str(quiz()))
    processes = launch("lacks memory")
    codes = ends(processes, 12)
    assert all(code > 0 for code in codes), [process.output for process in processes]
    assert "process 1 of the launch failed, and the others wait for it (memory does not suffice" in processes[0].output
    assert not list((tmp_path / "out").rglob("failures.json"))


def test_an_order_may_come_later_than_anything_else_is_waited_for(launch, tmp_path):
    processes = launch("orders late")
    assert [process.wait(timeout=60) for process in processes] == [0, 0], [process.output for process in processes]
    assert len(files_of(tmp_path / "out")) == 3


def test_an_interrupt_ends_the_launch_and_counts_for_nothing(launch, tmp_path):
    """Though the first process waits in a collective, which cannot be interrupted."""
    processes = launch("waits")
    processes[1].first_line()
    for process in processes:
        process.send(signal.SIGTERM)
    codes = ends(processes, 10)
    assert codes == [130, 128 + signal.SIGTERM], [process.output for process in processes]
    assert not claims(tmp_path / "out")
    assert not list((tmp_path / "out").rglob("failures.json"))


@pytest.mark.parametrize(("what", "told"), [("stops", "says nothing any more"), ("hangs", "has not come as far")])
def test_a_process_that_keeps_the_others_waiting_is_named_and_may_go_on(launch, what, told):
    assert WAITING_SECONDS <= 60
    processes = launch(what)
    deadline = time.monotonic() + 60
    while f"waiting for process 1 of the launch, which {told}" not in processes[0].output:
        assert time.monotonic() < deadline, processes[0].output
        time.sleep(0.05)
    # It may have been slow before it stopped.
    while processes[1].returncode is None and time.monotonic() < deadline:
        processes[1].send(signal.SIGCONT)
        time.sleep(0.05)
    assert [process.wait(timeout=60) for process in processes] == [0, 0], processes[0].output
    assert "3 measured" in processes[0].output


@pytest.mark.parametrize("what", ["connects late", "cannot connect", "is not heard"])
def test_a_launch_measures_all_however_its_processes_connect(launch, what):
    processes = launch(what)
    assert [process.wait(timeout=60) for process in processes] == [0, 0], [process.output for process in processes]
    assert "3 measured" in processes[0].output
    assert ("no connection to process 1" in processes[0].output) == (what != "connects late")


def test_trouble_that_passes_on_one_process_passes_on_all(monkeypatch):
    """That others hold memory is seen on the process that lacks it; the others are told that memory lacks."""
    processes = Launch(None)
    processes.size, processes._lifeline = 2, SimpleNamespace(raised=lambda *_: None, returned=lambda: None)

    def gather(said, mine, group):
        said[:] = [mine, ("others hold 40 GB: wait", "the GPU's memory")]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    for error in (None, LmsatError("memory does not suffice")):
        with pytest.raises(PassingError, match="others hold 40 GB: wait") as caught:
            processes._agree(1, error)
        assert caught.value.source == "the GPU's memory"
