"""A process of a launch of two dies, or raises, before a collective: the launch ends, and a restart mends the store.

A sample of the kinds of collectives; all with LMSAT_EXHAUSTIVE=1.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import yaml
from exhaustive import EXHAUSTIVE
from fault_checks import check_restarted, complains
from faults import Case, Ended
from places import HELPERS
from quiz import write_quiz
from sweep_outputs import content_of
from torchrun import ENVIRONMENT
from warm_lmsat import WarmLmsat

SECONDS = 20.0
"""Within which the other process has to end: the grace is shorter here than it is."""


@pytest.fixture(scope="module")
def launch(save, documents, tmp_path_factory):
    """Return a function that runs a sweep on two processes, of which one goes wrong before a collective."""
    folder = tmp_path_factory.mktemp("launch")
    (folder / "run").mkdir()
    for step in (0, 10):
        save(folder / "run" / f"step{step}", step)
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents[3:8]))
    values = {
        "models": [str(folder / "run")],
        "tasks": ["lmsat_loss", "lmsat_rank_head", "quiz"],
        "include_path": str(write_quiz(folder / "quiz", train=2, test=3)),
        "corpus": str(folder / "corpus.jsonl"),
        "max_tokens": 200,
        "metadata": {"ranks": [4], "train_tokens": 600, "batch_tokens": 128},
        "num_fewshot": 0,
        "batch_size": 4,
        "output": "-",
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(values))
    arguments = ["sweep", str(folder / "sweep.yaml"), "device=cpu"]
    environment = {**os.environ, "LMSAT_CACHE": str(folder / "cache")}
    warm = WarmLmsat(folder, environment, [*arguments, f"output={folder / 'first'}"])
    started = []

    def launch(output: Path, fault: dict | None = None):
        with socket.create_server(("127.0.0.1", 0)) as free:
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        place |= {**ENVIRONMENT, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        script = str(HELPERS / "faulty_collectives.py")
        running = []
        for rank in range(2):
            told = json.dumps({"log": f"{output}.{rank}", **(fault or {})})
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            running.append(warm.start(script, told, *arguments, f"output={output}", **place, **ranks))
        started.extend(running)
        return running

    yield launch
    for process in started:
        process.send(signal.SIGKILL)
    warm.close()


def test_a_process_is_lost_before_any_collective(launch, tmp_path):
    undisturbed = launch(tmp_path / "undisturbed")
    assert [process.wait() for process in undisturbed] == [0, 0], [process.output for process in undisturbed]
    right = content_of(tmp_path / "undisturbed")
    counts = [json.loads(Path(f"{tmp_path}/undisturbed.{rank}").read_text()) for rank in range(2)]
    faults = [
        {"kind": kind, "number": (count + 1) // 2, "rank": rank, "way": way}
        for rank in range(2)
        for kind, count in counts[rank].items()
        for way in ("dies", "raises")
    ]
    assert {fault["kind"] for fault in faults} >= {"all_reduce", "all_gather_object", "broadcast_object_list"}
    if not EXHAUSTIVE:
        faults = [
            fault for fault in faults if (fault["kind"], fault["rank"], fault["way"]) == ("all_reduce", 1, "dies")
        ]
    wrong = []
    for index, fault in enumerate(faults):
        output = tmp_path / str(index)
        begun = time.monotonic()
        running = launch(output, fault)
        codes = [process.wait(timeout=60) for process in running]
        seconds = time.monotonic() - begun
        printed = "".join(process.output for process in running)
        said = [f"took {seconds:.0f} s"] if seconds > SECONDS else []
        said += [] if all(codes) else [f"exit codes {codes}"]
        said += [f"recorded: {path}" for path in output.rglob("failures.json")]
        said += ["traceback"] if "Traceback" in printed else []
        said += [] if complains(printed) else ["no sentence"]
        again = [process.wait() for process in launch(output)]
        if said := said + check_restarted(Case(output, ()), Ended(max(again), "", []), right):
            wrong.append(f"{fault}: {said}\n{codes}: {printed}")
    assert not wrong, f"{len(wrong)} of {len(faults)}:\n" + "\n".join(wrong)
