"""Folders that look like checkpoints, and what a series of them is found to be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lmsat_plugin.series.checkpoint import Series


def make_checkpoint(folder: Path, weights: bytes | None = None, **state: object) -> Path:
    """Make a folder with a configuration, with weights, by default its own name, and with a Trainer's state."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(folder.name.encode() if weights is None else weights)
    if state:
        (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


def make_files(folder: Path, *names: str) -> Path:
    """Make a folder with files of these paths."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def places(series: Series) -> list[str]:
    """Return name, run, stage and step of each checkpoint, a dash where there is none."""
    return [f"{each.name} {each.run or '-'} {each.stage or '-'} {each.step}" for each in series.checkpoints]
