"""Checkpoints in training formats, converted for a sweep: each once, kept as downloads are, none half-converted."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from lmsat_plugin.conversion.commands import Converter
from lmsat_plugin.files import folder_name, safe_name, write_atomically
from lmsat_plugin.series.checkpoint import Checkpoint, warn_once
from lmsat_plugin.sweeps.fingerprint import SeenFiles, stamp_of
from lmsat_plugin.sweeps.jobs import Job
from lmsat_plugin.sweeps.kept_folders import KeptFolders, user_of
from lmsat_plugin.sweeps.stored import canonical

_MODEL = "model"
_WHOLE = ".converted"
"""The file that says what was converted, written last."""


class Conversions:
    """Converted checkpoints, ``<folder>/<model>/<hash of the source's stamp and the recipe>/model``.

    Args:
        folder: Where to put them.
        logs: Where to put what the commands print.
        keep: How many released ones stay; None for all.
    """

    def __init__(self, folder: Path, logs: Path, keep: int | None) -> None:
        self._logs = logs
        self._kept = KeptFolders(folder, keep)
        self._places: dict[Checkpoint, Path] = {}
        """Those that are in use here."""
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
        noted["conversion"] = recipe.describe()
        key = hashlib.sha256(f"{checkpoint.folder}\0{canonical(noted['files'])}".encode("utf-8", "surrogatepass"))
        place = self._kept.folder / safe_name(checkpoint.model) / key.hexdigest()[:32]
        self._places[checkpoint] = place
        with self._kept.alone():
            self._kept.use(place, user_of(checkpoint))
        with FileLock(place.with_name(f".{place.name}.lock")):
            if (notes := _notes_of(place)) is None:
                shutil.rmtree(place / _MODEL, ignore_errors=True)
                log = self._logs / f"{folder_name(checkpoint.model)}--{folder_name(checkpoint.name)}.log"
                out, scratch = place / _MODEL, place / "scratch"
                notes = recipe.make(checkpoint.folder, out, scratch=scratch, log=log, converter=self._converter)
                seen.check()
                whole = {"notes": notes, "files": stamp_of(out, whole=True)}
                write_atomically(place / _WHOLE, json.dumps(whole).encode())
        if stripped := notes.get("stripped"):
            warn_once(f"{checkpoint.model}: names of tensors begin with '{stripped}', which is left out", stripped)
        noted["conversion"].update(notes)
        return place / _MODEL

    def release(self, checkpoint: Checkpoint) -> None:
        """Mark a converted checkpoint as no longer used, and delete all unused ones but the latest ``keep``."""
        if (place := self._places.pop(checkpoint, None)) is not None:
            self._kept.release(place, user_of(checkpoint), broken=not (place / _WHOLE).exists())

    def stop(self) -> None:
        """End the command that runs, if any, and run no more."""
        self._converter.stop()

    def clean(self) -> None:
        """Release what dead processes had in use, and delete all unused ones but the latest ``keep``."""
        self._kept.clean()


def _notes_of(place: Path) -> dict[str, Any] | None:
    """Return what was noted of a conversion whose files are all as they were written; None if there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        whole = json.loads((place / _WHOLE).read_bytes())
        if whole["files"] and whole["files"] == stamp_of(place / _MODEL, whole=True):
            return dict(whole["notes"])
    return None
