"""The files of references: fetched before a job is measured, and released after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lmsat_plugin.measurement.references import KeptTensors, Reference, References
from lmsat_plugin.plugins import plugins
from lmsat_plugin.sweeps.checkpoint_folders import CheckpointFolders
from lmsat_plugin.sweeps.fingerprint import SeenFiles, fingerprint
from lmsat_plugin.sweeps.job_errors import raise_outside, reason_of
from lmsat_plugin.sweeps.jobs import Job
from lmsat_plugin.sweeps.plan import Plan, PlannedResult
from lmsat_plugin.sweeps.references import PREVIOUS
from lmsat_plugin.sweeps.store import Store
from lmsat_plugin.sweeps.units import reference_setting

_KEPT_AT_THE_END = 2
_UNREADABLE = "unreadable"


@dataclass(kw_only=True)
class JobReferences:
    """The references of jobs, and where their files are."""

    plan: Plan
    store: Store
    folders: CheckpointFolders
    kept: KeptTensors
    """Where tensors that are computed of checkpoints are kept for those measured later."""
    _fetched: dict[Job, list[Job]] = field(default_factory=dict)

    def fetch(self, job: Job, work: Sequence[PlannedResult]) -> tuple[dict[str, Reference], list[SeenFiles]]:
        """Return the references of a job, by what settings say, and their files as they were before they are read.

        Raises `PassingError` where another try may do better.
        """
        asked = {result.unit.probe: reference_setting(result.unit, self.plan.config) for result in work}
        seen: list[SeenFiles] = []
        found: dict[str, Reference] = {}
        for setting in filter(None, dict.fromkeys(asked.values())):
            looking_back = [name for name, own in asked.items() if own == setting and name and _looks_back(name)]
            found[setting] = self._fetch_one(job, setting, looking_back, seen)
        return found, seen

    def of(self, job: Job, weights: str | None, by_setting: dict[str, Reference]) -> References:
        """Return what is told of a job's references to the processes that measure it."""
        return References(by_setting=by_setting, identity=self.plan.loaded(job, weights), kept=self.kept)

    def accept(self, job: Job, weights: str | None) -> None:
        """Let later checkpoints be compared with a job's, whose files did not change while it was measured."""
        self.kept.accept(self.plan.loaded(job, weights))

    def release(self, job: Job) -> None:
        """Let go of the files of a job's references."""
        for reference in self._fetched.pop(job, ()):
            self.folders.release(reference)

    def close(self) -> None:
        """Delete what was kept of checkpoints, but for the last ones, with which a later sweep goes on."""
        self.kept.tidy(_KEPT_AT_THE_END)

    def _fetch_one(self, job: Job, setting: str, looking_back: Sequence[str], seen: list[SeenFiles]) -> Reference:
        reference = self.plan.reference(job, setting)
        if isinstance(reference, str):
            return Reference(name=setting, reason=reference)
        found = self._fetch_job(reference, job, seen)
        if setting != PREVIOUS or not looking_back:
            return found
        before = self.plan.reference(reference, PREVIOUS)
        if isinstance(before, str):
            return found
        identity = self.plan.loaded(before, self.plan.weights_of(before))
        if all(self.kept.holds(identity, name) for name in looking_back):
            return replace(found, before=Reference(name=before.label, identity=identity))
        return replace(found, before=self._fetch_job(before, job, seen))

    def _fetch_job(self, reference: Job, job: Job, seen: list[SeenFiles]) -> Reference:
        own = _apart(reference, job)
        self._fetched.setdefault(job, []).append(own)
        stamp = None if reference.checkpoint.on_hub else reference.stamp()
        try:
            folder = self.folders.fetch(own, {})
            files = SeenFiles.of(folder)
            weights = self.plan.weights_of(reference)
            if weights in (None, _UNREADABLE):
                weights = fingerprint(folder).identity
                files.check(may_grow=reference.checkpoint.on_hub)
                self._note(reference, stamp, weights)
        except Exception as error:
            raise_outside(error)
            # Tried again once its files are others.
            self._note(reference, stamp, _UNREADABLE)
            return Reference(name=reference.label, reason=f"the reference {reference.label} failed: {reason_of(error)}")
        if not (reference.checkpoint.on_hub or reference.checkpoint.parts):
            seen.append(files)
        identity, is_same = self.plan.loaded(reference, weights), reference.checkpoint.model == job.checkpoint.model
        name = reference.checkpoint.name if is_same else reference.label
        place = _place_of(reference)
        return Reference(name=name, source=str(folder), place=place, identity=identity, weights=weights)

    def _note(self, reference: Job, stamp: Any, weights: str) -> None:
        on_hub = reference.checkpoint.on_hub
        if not (on_hub and weights == _UNREADABLE):
            self.plan.note_weights(reference, stamp, weights)
        if not on_hub:
            self.store.note_reference(reference.checkpoint, stamp, weights)


def _looks_back(probe: str) -> bool:
    return plugins().probe(probe).looks_back


def _place_of(reference: Job) -> str | None:
    """Return what is given to measure beside a checkpoint; None where it is not at hand as a model."""
    checkpoint = reference.checkpoint
    if checkpoint.parts or checkpoint.subfolder or reference.converts:
        return None
    return checkpoint.pretrained if checkpoint.folder else f"{checkpoint.pretrained}@{checkpoint.ref}"


def _apart(reference: Job, job: Job) -> Job:
    """Return a reference under a name of its own, so that what marks its folder as used is not its own job's mark."""
    within = "/".join(filter(None, ("beside", job.checkpoint.name, reference.checkpoint.within)))
    return replace(reference, checkpoint=replace(reference.checkpoint, within=within))
