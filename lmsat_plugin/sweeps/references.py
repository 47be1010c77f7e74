"""Which checkpoint of a sweep is the reference of another, and in which order references are measured first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.measurement.references import PLACES, split_name
from lmsat_plugin.series.checkpoint import Checkpoint
from lmsat_plugin.sweeps.config import ModelEntry
from lmsat_plugin.sweeps.jobs import Job, find_entry

PREVIOUS = "previous"
logger = logging.getLogger(__name__)


def find_reference(
    setting: str, job: Job, jobs: Sequence[Job], outside: Callable[[str], Checkpoint | str]
) -> Job | str:
    """Return the reference that a setting names for a job, among the jobs of a sweep in the order of training.

    It is one of the same run, by its place or its name; or that of another run or model, at the same place in training;
    or a checkpoint that is none of the sweep's, which `find_outside` returns. A sentence says why there is none.
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
        # An average has the place of its last part; a run may be called the same in each model.
        for name in ("branch", "model", "run"):
            mine = [other for other in same if getattr(other.checkpoint, name) == getattr(job.checkpoint, name)]
            same = mine or same
        if len(same) > 1:
            labels = ", ".join(other.label for other in same)
            return f"{setting} has {len(same)} checkpoints at the same step ({labels}): name the one run, as MODEL/RUN"
        return same[0] if same else f"{setting} has no checkpoint at the same step"
    found = outside(setting)
    return found if isinstance(found, str) else replace(job, checkpoint=found)


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


def find_outside(setting: str) -> Checkpoint | str:
    """Return a checkpoint that is none of the sweep's: of a folder, or of a name on the Hub; or why there is none."""
    try:
        source, revision = split_name(setting)
        found = find_entry(ModelEntry(pretrained=source)).checkpoints
    except LmsatError as error:
        return _said(f"reference={setting} is no checkpoint of the run, no other run, and is not found ({error})")
    wanted = [checkpoint for checkpoint in found if revision in ("", checkpoint.name, checkpoint.revision)]
    if len(wanted) != 1:
        return _said(f"reference={setting} has {len(wanted)} checkpoints: name one, as {source}@NAME")
    return wanted[0]


@cache
def _said(reason: str) -> str:
    """Warn, once, that no checkpoint is seen beside the one that a setting names, and return why."""
    logger.warning("%s; nothing is compared with it", reason)
    return reason
