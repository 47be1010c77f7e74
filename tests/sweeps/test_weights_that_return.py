"""A checkpoint whose files were others for a while: what is shown was measured on the files that are there."""

from __future__ import annotations

import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmsat_plugin.cli.main import main
from lmsat_plugin.results import load_results

YEAR = 3e7


def spoil(folder, save):
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["embed_out.weight"].fill_(torch.nan)
    save_file(weights, path, {"format": "pt"})


def exchange(folder, save):
    shutil.rmtree(folder)
    save(folder, 1)


@pytest.mark.parametrize(("change", "clock"), [(exchange, -YEAR), (spoil, 0)])
def test_weights_that_come_back_are_measured_again(configure, save, tmp_path, run_folder, monkeypatch, change, clock):
    for folder in ("step0", "step10"):
        shutil.rmtree(run_folder / folder)
    config, folder = str(configure(tasks=["lmsat_loss"], max_tokens=100)), run_folder / "step100"

    def values():
        table = load_results(tmp_path / "out")
        return dict(zip(table.metric, table.value.astype(str), strict=True))

    shutil.rmtree(folder)
    save(folder, 0)
    assert main(["sweep", config]) == 0
    first = values()
    change(folder, save)
    main(["sweep", config])
    assert values() != first
    shutil.rmtree(folder)
    save(folder, 0)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + clock)
    for arguments in ([], ["--force"], ["--force"], []):
        assert main(["sweep", config, *arguments]) == 0
        assert values() == first
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").rglob("results_*.json"))) == (5 if change is exchange else 4)
