"""``lmsat sweep --watch``: checkpoints are measured as they appear."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from sweep_outputs import files_of


def test_watch_measures_checkpoints_as_they_appear(start, configure, save, run_folder, tmp_path):
    aside = run_folder.rename(tmp_path / "aside")
    process = start(configure(), "--watch", "0.3")
    # The folder is not there yet: it says so, and waits.
    assert "Waiting: pretrained=" in process.first_line()

    def wait_for(step: int, name: str, there: bool = True) -> None:
        deadline = time.monotonic() + 100
        while bool(list((tmp_path / "out").rglob(f"run/step{step}/{name}"))) != there:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    run_folder.mkdir()
    (aside / "step0").rename(run_folder / "step0")
    wait_for(0, "results_*.json")
    # One that rests half written is a failure, until it is whole.
    whole = (aside / "step10" / "model.safetensors").read_bytes()
    (aside / "step10" / "model.safetensors").write_bytes(whole[:5000])
    (aside / "step10").rename(run_folder / "step10")
    wait_for(10, "failures.json")
    (run_folder / "step10" / "model.safetensors").write_bytes(whole)
    wait_for(10, "results_*.json")
    wait_for(10, "failures.json", there=False)
    process.send(signal.SIGINT)
    assert process.wait(timeout=60) == 130, process.output
    assert {Path(path).parts[1] for path in files_of(tmp_path / "out")} == {"step0", "step10"}
