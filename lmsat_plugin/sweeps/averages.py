"""Averages of checkpoints, made for a sweep of the files of their parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lmsat_plugin.conversion.averages import average_checkpoints, move_average
from lmsat_plugin.results.checkpoint_names import averaging_of
from lmsat_plugin.series.averages import decay_of
from lmsat_plugin.series.checkpoint import Checkpoint
from lmsat_plugin.sweeps.fingerprint import ChangedError, Stamp, comparable, content_of, stamp_sha256
from lmsat_plugin.sweeps.jobs import Job
from lmsat_plugin.sweeps.made_folders import MadeFolders

_STATE = "state.safetensors"
"""The file beside the folder of an exponential moving average that has it in float64."""


class PartFolders(Protocol):
    """What gives the folders of the checkpoints that an average is made of."""

    def fetch(self, job: Job, noted: dict[str, Any]) -> Path:
        """Return the folder of a checkpoint, and keep it until `release`."""

    def release(self, job: Job) -> None:
        """Let go of a checkpoint's folder."""


class Averages:
    """Averaged checkpoints, by the hash of the stamps of their parts.

    Args:
        folder: Where to put them.
        keep: How many released ones stay, of which one is always kept; None for all.
        parts: Where the parts come from.
    """

    def __init__(self, folder: Path, keep: int | None, parts: PartFolders) -> None:
        # A moving average goes on from the one before.
        self._made = MadeFolders(folder, None if keep is None else max(keep, 1))
        self._parts = parts

    def fetch(self, job: Job, noted: dict[str, Any]) -> Path:
        """Return the folder of an average, made unless it was before.

        Adds to ``noted`` the stamp of the parts' files, and the parts. Raises `LmsatError` where it cannot be made, and
        `ChangedError` where files of the parts change meanwhile.
        """
        stamps = job.part_stamps()
        noted["files"] = stamp = job.over_parts(stamps)
        place, make = self._place(job, stamp), partial(self._make, job, stamp)
        folder, made = self._made.fetch(job.checkpoint, place, make)
        # An average that was made before may be of folders that have been moved since.
        parts = zip(made["of"], job.parts, stamps, strict=True)
        noted["average"] = made | {"of": [hashes | _described(part, seen) for hashes, part, seen in parts]}
        return folder

    def _place(self, job: Job, stamp: Stamp) -> Path:
        return self._made.place(job.checkpoint, job.label, stamp)

    def _make(self, job: Job, stamp: Stamp, out: Path) -> dict[str, Any]:
        decay = decay_of(job.checkpoint)
        if decay is None:
            with self._fetched(job.parts) as folders:
                average_checkpoints(folders, out)
                parts = _hashed(job.parts, folders)
        else:
            parts = self._move(job, decay, out)
        if job.stamp() != stamp:
            raise ChangedError(
                f"files of {job.label} changed while they were averaged: start again when nothing writes to them",
                source=job.checkpoint.pretrained,
            )
        return {"how": averaging_of(job.checkpoint.revision), "of": parts}

    def _move(self, job: Job, decay: float, out: Path) -> list[dict[str, Any]]:
        """Make a moving average of the one before and the last checkpoint; of all checkpoints where that is gone."""
        before = self._before(job)
        with nullcontext() if before is None else self._made.kept(before, job.checkpoint) as notes:
            state = None if before is None or notes is None else before / _STATE
            new = job.parts if state is None else job.parts[-1:]
            with self._fetched(new) as folders:
                move_average(state, folders, decay=decay, out=out, new_state=out.with_name(_STATE))
                return [*([] if notes is None else notes["of"]), *_hashed(new, folders)]

    def _before(self, job: Job) -> Path | None:
        """Return where the moving average one checkpoint before is, if it is there; None for that of the first."""
        parts, how = job.checkpoint.parts[:-1], averaging_of(job.checkpoint.revision)
        if not parts:
            return None
        previous = replace(job.checkpoint, revision=f"{how}@{parts[-1].revision}", within=parts[-1].within, parts=parts)
        job = replace(job, checkpoint=previous)
        return self._place(job, job.stamp())

    @contextmanager
    def _fetched(self, parts: Sequence[Job]) -> Iterator[list[Path]]:
        try:
            yield [self._parts.fetch(part, {}) for part in parts]
        finally:
            for part in parts:
                self._parts.release(part)

    def release(self, checkpoint: Checkpoint) -> None:
        """Mark an average as no longer used, and delete all unused ones but the latest ``keep``."""
        self._made.release(checkpoint)

    def clean(self) -> None:
        """Release what dead processes had in use, and delete all unused ones but the latest ``keep``."""
        self._made.clean()


def _hashed(parts: Sequence[Job], folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return what identifies the content of an average's parts; that of the Hub is known by its commit."""
    return [
        {} if part.checkpoint.on_hub else asdict(content_of(folder))
        for part, folder in zip(parts, folders, strict=True)
    ]


def _described(part: Job, seen: Stamp | str | None) -> dict[str, Any]:
    """Return what results note of a checkpoint that an average is made of, beside its content."""
    checkpoint = part.checkpoint
    described = {
        name: getattr(checkpoint, name) for name in ("pretrained", "revision", "step", "tokens", "commit", "subfolder")
    }
    if isinstance(seen, dict):
        described["files_sha256"] = stamp_sha256(comparable(seen) if part.converts else seen)
    if part.converts and part.recipe is not None:
        described["conversion"] = part.recipe.describe()
    return {name: value for name, value in described.items() if value is not None}
