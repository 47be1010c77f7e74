"""Checkpoints of equal files, which the Hub's digests tell before any download: one is measured, for all of them."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import read_file, safe_name
from lmsat_plugin.results.array_files import array_path, read_arrays
from lmsat_plugin.results.digests import DIGESTS
from lmsat_plugin.results.json_values import as_dict
from lmsat_plugin.results.reading import parse_result_file
from lmsat_plugin.sweeps.config import Options
from lmsat_plugin.sweeps.downloads import Downloads
from lmsat_plugin.sweeps.jobs import Job
from lmsat_plugin.sweeps.listings import Content
from lmsat_plugin.sweeps.store import NewResult, Store
from lmsat_plugin.sweeps.stored import AUTO_PREFIX, Identity, canonical, identities_in, superseded

logger = logging.getLogger(__name__)

_OF_THE_FILE = (*("arrays", "arrays_sha256", "arrays_content", "samples_sha256", "supersedes"), *DIGESTS)
_NAMES = ("pretrained", "revision", "subfolder")


@dataclass
class Twins:
    """Which of a sweep's jobs have checkpoints of equal files, and equal arguments to load them with."""

    jobs: Sequence[Job]
    downloads: Downloads
    store: Store

    def __post_init__(self) -> None:
        self._contents: dict[Job, Content] = {}

    def of(self, job: Job) -> list[Job]:
        """Return the other jobs whose checkpoint has the same files, as far as that is known without asking."""
        content = self._content(job)
        if content is None:
            return []
        others = (other for other in self.jobs if other != job and other.model_args == job.model_args)
        return [other for other in others if self._content(other) == content]

    def comes_first(self, job: Job) -> bool:
        """Return whether another job of the same files comes before this one, or has results. The Hub may be asked.

        Raises `LmsatError` if the Hub cannot be asked, or refuses.
        """
        if not job.checkpoint.on_hub or len(self.jobs) < 2 or self.downloads.cannot_ask:
            return False
        self.downloads.listings.files(job.checkpoint)
        twins = self.of(job)
        before = set(self.jobs[: self.jobs.index(job)]) if twins else set()
        return any(twin in before or self.store.stamp(twin.checkpoint) for twin in twins)

    def _content(self, job: Job) -> Content | None:
        if job not in self._contents:
            content = self.downloads.content(job.checkpoint)
            if content is None:
                return None
            self._contents[job] = content
        return self._contents[job]


def results_of_twin(
    store: Store, job: Job, twin: Job, *, wanted: Sequence[Identity], options: Options
) -> Iterator[NewResult]:
    """Yield the results of a checkpoint as those of another one of equal files: under its name, step and commit.

    ``wanted`` is what is still to be measured; a result file that holds anything else, or is damaged, is left.
    """
    there, ours = store.read(twin.checkpoint), store.read(job.checkpoint)
    texts = {canonical({**identity, "weights": twin.checkpoint.content}): identity for identity in wanted}
    of_file: dict[str, set[str]] = {}
    for text, name in there.done.items():
        if text not in there.by_auto:
            of_file.setdefault(name, set()).add(text)
    for name, held in of_file.items():
        if not held <= texts.keys() or (options.force and there.runs[name] != options.run):
            continue
        path = there.folder / name
        try:
            document = parse_result_file(path) or {}
            notes = as_dict(as_dict(document.get("config")).get("lmsat"))
            if held != {canonical(identity) for identity in identities_in(notes)}:
                continue
            arrays_file = array_path(path, notes)
            arrays = {} if arrays_file is None else read_arrays(arrays_file, notes, ())
            results = _renamed(document, path, job)
        except (LmsatError, OSError, ValueError, KeyError) as error:
            logger.warning("%s cannot be taken over for %s (%s): it is measured", path, job.label, error)
            continue
        twin_notes = as_dict(notes.get("checkpoint"))
        named = {key: twin_notes.get(key) for key in ("model", "revision", "within", "commit", "subfolder")}
        checkpoint = {
            **job.describe(),
            **{key: twin_notes[key] for key in ("weights_sha256", AUTO_PREFIX) if key in twin_notes},
            "same_files_as": {key: value for key, value in named.items() if value is not None},
        }
        identities = [texts[canonical(identity)] for identity in identities_in(notes)]
        yield NewResult(
            results=results,
            arrays=arrays,
            identities=identities,
            supersedes=superseded(ours, identities, document.get("group_subtasks") or {}),
            checkpoint=checkpoint,
            run=options.run,
        )


def _renamed(document: dict[str, Any], path: Path, job: Job) -> dict[str, Any]:
    """Return a result as lm-eval would write it of another checkpoint, samples included."""
    config, checkpoint = document["config"], job.checkpoint
    notes = config["lmsat"]
    names = notes.get("samples_sha256") or {}
    date = path.stem.removeprefix("results_")
    of_task = {task: f"samples_{safe_name(task)}_{date}.jsonl" for task in document["results"]}
    document["samples"] = {
        task: [json.loads(line) for line in read_file(path.with_name(name)).decode().splitlines()]
        for task, name in of_task.items()
        if name in names
    }
    config["lmsat"] = {key: value for key, value in notes.items() if key not in _OF_THE_FILE}
    config["lmsat"]["commit"] = config["model_sha"] = checkpoint.commit
    config.update(model_args=job.load_args, model_revision=checkpoint.revision)
    for task in document["configs"].values():
        if isinstance(task.get("metadata"), dict):
            kept = {key: value for key, value in task["metadata"].items() if key not in _NAMES}
            task["metadata"] = {**kept, **job.load_args}
    name = checkpoint.pretrained
    # As lm-eval makes a file's name.
    document.update(date=time.time(), model_name=name, model_name_sanitized=re.sub(r'["<>:/\\|?*\[\]]+', "__", name))
    return document
