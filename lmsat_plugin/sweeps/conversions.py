"""Checkpoints in training formats, converted for a sweep."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from lmsat_plugin.conversion.commands import Converter
from lmsat_plugin.files import folder_name
from lmsat_plugin.series.checkpoint import Checkpoint, warn_once
from lmsat_plugin.sweeps.fingerprint import SeenFiles
from lmsat_plugin.sweeps.jobs import Job
from lmsat_plugin.sweeps.made_folders import MadeFolders


class Conversions:
    """Converted checkpoints, by the hash of the source's stamp and the recipe.

    Args:
        folder: Where to put them.
        logs: Where to put what the commands print.
        keep: How many released ones stay; None for all.
    """

    def __init__(self, folder: Path, logs: Path, keep: int | None) -> None:
        self._logs = logs
        self._made = MadeFolders(folder, keep)
        self._converter = Converter()

    def fetch(self, job: Job, noted: dict[str, Any]) -> Path:
        """Return the folder of a job's checkpoint for transformers, converted unless it was before.

        Adds to ``noted`` the stamp of the source's files, and how they were converted. Raises `LmsatError` where that
        fails, and `ChangedError` where the source changes meanwhile.
        """
        checkpoint, recipe = job.checkpoint, job.recipe
        assert checkpoint.folder is not None
        assert recipe is not None
        seen = SeenFiles.of(checkpoint.folder, whole=True)
        noted["files"] = job.with_recipe(seen.stamp)
        place = self._made.place(checkpoint, str(checkpoint.folder), noted["files"])
        folder, notes = self._made.fetch(checkpoint, place, partial(self._convert, job, seen))
        if stripped := notes.get("stripped"):
            warn_once(f"{checkpoint.model}: names of tensors begin with '{stripped}', which is left out", stripped)
        noted["conversion"] = {**recipe.describe(), **notes}
        return folder

    def _convert(self, job: Job, seen: SeenFiles, out: Path) -> dict[str, Any]:
        checkpoint, recipe = job.checkpoint, job.recipe
        assert recipe is not None
        log = self._logs / f"{folder_name(checkpoint.model)}--{folder_name(checkpoint.name)}.log"
        scratch = out.with_name("scratch")
        notes = recipe.make(seen.folder, out, scratch=scratch, log=log, converter=self._converter)
        seen.check()
        return notes

    def release(self, checkpoint: Checkpoint) -> None:
        """Mark a converted checkpoint as no longer used, and delete all unused ones but the latest ``keep``."""
        self._made.release(checkpoint)

    def stop(self) -> None:
        """End the command that runs, if any, and run no more."""
        self._converter.stop()

    def clean(self) -> None:
        """Release what dead processes had in use, and delete all unused ones but the latest ``keep``."""
        self._made.clean()
