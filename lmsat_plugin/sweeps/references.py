"""Which checkpoint of a sweep is the reference of another, and in which order references are measured first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.measurement.references import PLACES
from lmsat_plugin.series.checkpoint import Checkpoint
from lmsat_plugin.sweeps.config import ModelEntry
from lmsat_plugin.sweeps.jobs import Job, find_entry

PREVIOUS = "previous"


def find_reference(setting: str, job: Job, jobs: Sequence[Job]) -> Job | str:
    """Return the reference that a setting names for a job, among the jobs of a sweep in the order of training.

    It is one of the same run, by its place or its name; or that of another run or model, at the same place in training;
    or a checkpoint that is none of the sweep's: a folder, or a name on the Hub. A sentence says why there is none.
    """
    own = [other for other in jobs if _series(other.checkpoint) == _series(job.checkpoint)]
    if setting in PLACES:
        place = own.index(job)
        index = {PREVIOUS: place - 1, "next": place + 1, "first": 0, "last": len(own) - 1}[setting]
        if not 0 <= index < len(own):
            which = "first" if setting == PREVIOUS else "last"
            return f"it is the {which} checkpoint of the run, which has no {setting} one"
        return own[index]
    for other in own:
        if setting in (other.checkpoint.name, other.checkpoint.revision):
            return other
    if others := [other for other in jobs if setting in _names(other.checkpoint)]:
        here = _place(job.checkpoint)
        same = [other for other in others if _place(other.checkpoint) == here]
        return same[0] if same else f"{setting} has no checkpoint at the same step"
    return _outside(setting, job)


def order_of(settings: Sequence[str], jobs: Sequence[Job]) -> list[Job]:
    """Return jobs in an order in which most references are measured before those that they are references of."""
    runs: dict[Any, list[Job]] = {}
    for job in jobs:
        runs.setdefault(_series(job.checkpoint), []).append(job)
    if "next" in settings:
        return [job for run in runs.values() for job in reversed(run)]
    if "last" in settings:
        return [job for run in runs.values() for job in (run[-1], *run[:-1])]
    if named := {setting for setting in settings if setting not in PLACES}:
        return sorted(jobs, key=lambda job: not named & {*_names(job.checkpoint), job.checkpoint.name})
    return list(jobs)


def _series(checkpoint: Checkpoint) -> tuple[Any, ...]:
    return checkpoint.model, checkpoint.run, checkpoint.branch


def _names(checkpoint: Checkpoint) -> set[str]:
    """Return what a run is called: its model, its own name, and both."""
    model, run = checkpoint.model, checkpoint.run
    return {model} if run is None else {model, run, f"{model}/{run}"}


def _place(checkpoint: Checkpoint) -> tuple[Any, ...]:
    return tuple(checkpoint.place[name] for name in ("stage", "step", "tokens", "words"))


def _outside(setting: str, job: Job) -> Job | str:
    """Return a checkpoint that is none of the sweep's, which is loaded as the job's is."""
    source, _, revision = (setting, "", "") if Path(setting).exists() else setting.partition("@")
    try:
        found = find_entry(ModelEntry(pretrained=source)).checkpoints
    except LmsatError as error:
        return f"reference={setting} is no checkpoint of the run, no other run, and is not found ({error})"
    wanted = [checkpoint for checkpoint in found if revision in ("", checkpoint.name, checkpoint.revision)]
    if len(wanted) != 1:
        return f"reference={setting} has {len(wanted)} checkpoints: name one, as {source}@NAME"
    return replace(job, checkpoint=wanted[0])
