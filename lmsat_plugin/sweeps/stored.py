"""What the files of one checkpoint's results say: which are there, which failed, which are damaged or stray."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError, UnwritableError
from lmsat_plugin.files import PART, FileStamp, paths_in, safe_name, stamp_file
from lmsat_plugin.metrics import probe_of_task
from lmsat_plugin.passing import patiently
from lmsat_plugin.results.array_files import ArraysError, array_path, loss_tasks, read_arrays
from lmsat_plugin.results.failures import ADDITION, FAILURES, is_diverged, read_failures
from lmsat_plugin.results.json_values import as_dict, as_dicts, as_number, as_text
from lmsat_plugin.results.question_scores import SamplesError, read_samples
from lmsat_plugin.results.reading import NO_METRICS, BrokenResultError, parse_result_file
from lmsat_plugin.series.checkpoint import Checkpoint

_DATE = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d[.\d]*)$")
"""The end of the name of a file of samples, without its suffix."""
_SOFTWARE = ("lmsat-plugin", "lm_eval", "torch", "transformers", "tokenizers", "safetensors")

AUTO_PREFIX = "auto_prefix"
"""The note of what ``prefix=auto`` is for a checkpoint, ``window`` or ``document``, among those of the checkpoint."""

Identity = dict[str, Any]
"""All that a result depends on: weights, task, version, corpus, settings. Equal identities, equal results."""


# What a result is measured anew for and the old one stands no more; other settings make another result.
_REPLACED_BY = ("weights", "version", "reference")


def canonical(identity: Identity) -> str:
    """Return the one text of an identity, to compare it by."""
    return json.dumps(identity, sort_keys=True, default=str)


def of_whole(identity: Identity) -> str:
    """Return the one text of the identity that a probe's result has as a whole, whatever group of values it is of."""
    return canonical({key: value for key, value in identity.items() if key != ADDITION})


def replaceable(identity: Identity) -> str:
    """Return what two identities have in common of which the later one takes the other's place."""
    return canonical({key: value for key, value in identity.items() if key not in _REPLACED_BY})


@dataclass
class Stored:
    """What is stored of one checkpoint."""

    folder: Path
    done: dict[str, str] = field(default_factory=dict)
    """From each identity measured, in canonical form, to the name of its result file."""
    runs: dict[str, str] = field(default_factory=dict)
    """From the name of a result file to the run that wrote it."""
    failed: dict[str, str] = field(default_factory=dict)
    """From each identity that could not be measured to the reason."""
    failed_run: str | None = None
    """The run that tried it last."""
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    """What the result files note of the checkpoint: commit, weights, files."""
    sources: dict[str, set[str | None]] = field(default_factory=dict)
    """From each folder or repository that was measured to its weights: a commit or a hash."""
    replaced: list[tuple[str, str]] = field(default_factory=list)
    """Identities measured, each with the name of its result file, whose results readers show no more: a later one took
    their place, as where a checkpoint's files were others for a while. They are to be measured again."""
    lost: dict[str, str] = field(default_factory=dict)
    """From each identity whose arrays or samples are lost, and that is to be measured again, to its result file."""
    by_auto: set[str] = field(default_factory=set)
    """The identities in ``done`` by which ``prefix=auto`` asks for results, beside those that the files state."""
    tokenizers_of_old: set[str] = field(default_factory=set)
    """Hashes of the tokenizers of results that do not note what ``prefix=auto`` was: all are of ``document``."""
    damaged: dict[Path, str] = field(default_factory=dict)
    """Result files, arrays, samples and records of failures that are cut, missing or changed, each with a sentence."""

    def is_placed_otherwise(self, place: Mapping[str, Any]) -> bool:
        """Return whether a result, or a record of failures, notes another place in training."""
        return any("revision" in noted and places_otherwise(noted, place) for noted in self.checkpoints)


def places_otherwise(noted: Mapping[str, Any], place: Mapping[str, Any]) -> bool:
    """Return whether results note another place in training than names, states and the configuration say now.

    Older results note no totals, which are the checkpoint's own numbers unless its stage began again.
    """
    own = {"total_step": noted.get("step"), "total_tokens": noted.get("tokens")}
    return any(noted.get(key, own.get(key)) != value for key, value in place.items())


def read_stored(folder: Path) -> Stored:
    """Return what is stored in a checkpoint's folder. A file that cannot be trusted counts for nothing.

    Waits where a disk fails to read. Raises OSError for a folder that cannot be read.
    """
    stored = Stored(folder)
    lost_with: dict[Path, tuple[set[str], str]] = {}
    measured_in: list[tuple[str, str, bool]] = []
    auto_of: dict[str, Any] = {}
    superseded: set[tuple[str, str]] = set()
    for path in patiently(lambda: paths_in(folder, "results_*.json")):
        document = _load_trusted(path)
        if document is None:
            stored.damaged[path] = f"{path} is cut or was changed by hand"
            continue
        notes = as_dict(document.get("config")).get("lmsat")
        if not isinstance(notes, dict) or "identities" not in notes:
            continue  # plain lm-eval wrote it
        stored.checkpoints.append(as_dict(notes.get("checkpoint")))
        auto_of[path.name] = stored.checkpoints[-1].get(AUTO_PREFIX)
        stored.runs[path.name] = as_text(notes.get("run")) or ""
        pretrained = as_text(as_dict(document["config"].get("model_args")).get("pretrained"))
        if pretrained is not None:
            weights = (as_text(stored.checkpoints[-1].get(key)) for key in ("identity", "commit"))
            stored.sources.setdefault(pretrained, set()).update(weights)
        faults = {file: (fault, tasks) for file, fault, tasks in files_of(path, document, notes) if fault is not None}
        lost = {task for _, tasks in faults.values() for task in tasks}
        held = (identity for identity in identities_in(notes) if is_held(document, notes, identity))
        measured = {canonical(identity): identity["task"] for identity in held}
        tokenizer = as_text(as_dict(notes.get("corpus")).get("tokenizer_sha256"))
        if auto_of[path.name] is None and tokenizer is not None and measured:
            stored.tokenizers_of_old.add(tokenizer)
        measured_in += [(text, path.name, task in lost) for text, task in measured.items()]
        for name, tasks in as_dict(notes.get("supersedes")).items():
            superseded.update(
                (name, str(task)) for task in (tasks if isinstance(tasks, list) else []) if name != path.name
            )
        for file, (fault, tasks) in faults.items():
            lost_with[file] = {text for text, task in measured.items() if task in tasks}, fault
    try:
        record = patiently(lambda: read_failures(folder / FAILURES))
    except LmsatError:
        stored.damaged[folder / FAILURES] = f"{folder / FAILURES} is cut or was changed by hand"
    else:
        if record is not None:
            # Other versions may succeed, but for a run that diverged. Old records do not say which they had.
            same = record.software in (None, software())
            stored.failed = {canonical(i): error for i, error in record.reasons if same or is_diverged(error)}
            stored.failed |= {
                other: error
                for text, error in stored.failed.items()
                for other in _by_auto(text, record.checkpoint.get(AUTO_PREFIX, _policy(json.loads(text))))
            }
            stored.checkpoints.append(record.checkpoint)
            stored.failed_run = record.run
    _sort_measured(stored, measured_in, superseded)
    asked = {other: name for text, name in stored.done.items() for other in _by_auto(text, auto_of[name])}
    stored.by_auto = asked.keys() - stored.done.keys()
    stored.done |= asked
    # Arrays and samples that were measured again since may be missing.
    stored.damaged |= {
        path: fault for path, (texts, fault) in lost_with.items() if path.exists() or texts & stored.lost.keys()
    }
    return stored


def _policy(identity: Identity) -> str:
    return as_text(as_dict(identity.get("corpus")).get("prefix")) or "document"


def _by_auto(text: str, auto: Any) -> Iterator[str]:
    """Yield the identity by which ``prefix=auto`` asks for a result, if ``auto`` is the result's policy."""
    identity = json.loads(text)
    if "corpus" in identity and _policy(identity) == auto:
        yield canonical({**identity, "corpus": {**identity["corpus"], "prefix": "auto"}})


def _sort_measured(
    stored: Stored, measured: Sequence[tuple[str, str, bool]], superseded: Collection[tuple[str, str]]
) -> None:
    """Sort identities, each with its file's name and whether its arrays are lost, by whether they stand."""
    # A run that diverged stands for what was measured on other weights before, as it does for readers.
    diverged = {replaceable(json.loads(text)) for text, error in stored.failed.items() if is_diverged(error)}
    for text, name, is_lost in measured:
        identity = json.loads(text)
        if (name, identity["task"]) in superseded or (text not in stored.failed and replaceable(identity) in diverged):
            stored.replaced.append((text, name))
        else:
            (stored.lost if is_lost else stored.done)[text] = name
    stored.lost = {text: name for text, name in stored.lost.items() if text not in stored.done}


def check_source(checkpoint: Checkpoint, stored: Stored, weights: str | None) -> None:
    """Raise `UnwritableError` if the results there are of another series of the same name."""
    checkpoint = checkpoint.last
    for source, measured in stored.sources.items():
        if checkpoint.folder is not None:
            other = Path(source)
            # A series that is not where it was has been moved.
            is_same = not other.is_dir() or other.samefile(checkpoint.folder)
        else:
            is_same = source == checkpoint.pretrained
        if not is_same and weights not in measured:
            raise UnwritableError(
                f"{stored.folder} holds results of {source}, and {checkpoint.pretrained} is called the same: give one "
                "of the two series another `name`, or another output folder"
            )


def superseded(stored: Stored, identities: Sequence[Identity], members: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the result files, with their tasks, that new results take the place of.

    ``members`` lists what each group consists of: with a group go its tasks.
    """

    def with_members(name: str) -> list[str]:
        return [name, *(task for member in members.get(name, ()) for task in with_members(member))]

    ours = {replaceable(identity) for identity in identities}
    files: dict[str, dict[str, None]] = {}
    for text, name in (*stored.lost.items(), *stored.done.items(), *stored.replaced):
        identity = json.loads(text)
        if replaceable(identity) in ours:
            files.setdefault(name, {}).update(dict.fromkeys(with_members(identity["task"])))
    return {name: list(tasks) for name, tasks in files.items()}


def strays_of(folder: Path) -> list[Path]:
    """Return what a kill has left in a checkpoint's folder: files half-written, arrays and samples without a result.

    Raises OSError for a folder that cannot be read.
    """
    written = {path.name.partition(".json")[0].removeprefix("results_") for path in paths_in(folder, "results_*.json*")}
    arrays = [path for path in paths_in(folder, "arrays_*.safetensors") if path.stem[len("arrays_") :] not in written]
    samples = [
        path
        for path in paths_in(folder, "samples_*.jsonl")
        if (date := _DATE.search(path.stem)) and date[1] not in written
    ]
    return sorted([*paths_in(folder, f".*{Path(PART).suffix}"), *arrays, *samples])


@cache
def software() -> dict[str, str]:
    """Return the versions of the packages on which it depends whether a checkpoint can be measured."""
    versions = {}
    for package in _SOFTWARE:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def is_held(document: dict[str, Any], notes: dict[str, Any], identity: Identity) -> bool:
    """Return whether a file holds the result that it says it holds.

    Each metric of a probe has to be a number, or a null with its reason. Of other tasks one number suffices.
    """
    task, of_probe = identity.get("task"), "settings" in identity
    if task not in document["results"]:
        return not of_probe  # a group without a score of its own
    entry = {key.partition(",")[0]: value for key, value in as_dict(document["results"][task]).items()}
    values = {key: value for key, value in entry.items() if key not in NO_METRICS and not key.endswith("_stderr")}
    numbers = [key for key, value in values.items() if as_number(value) is not None]
    if not of_probe:
        return bool(numbers) or not values
    probe = as_dict(as_dict(notes.get("probes")).get(as_text(as_dict(notes.get("tasks")).get(str(task))) or ""))
    explained = [key for key in as_dict(probe.get("reasons")) if values.get(key, "") is None]
    return len(numbers) + len(explained) == len(values)


def stamp_of_results(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Return names, sizes and times of the files of `read_stored`, which returns the same while they are the same."""
    stamp = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == FAILURES or entry.name.startswith(("results_", "arrays_", "samples_")):
                stamp.append((entry.name, *stamp_file(folder / entry.name)))
    return tuple(sorted(stamp))


def files_of(
    path: Path, document: Mapping[str, Any], notes: Mapping[str, Any]
) -> Iterator[tuple[Path, str | None, set[str]]]:
    """Yield the arrays and the samples that notes in a result file name, why they are lost, and the tasks they are of.

    The reason is None for a file that is whole. Files are read again only where their size or time has changed.
    """
    arrays = array_path(path, notes)
    if arrays is not None:
        values = (as_number(as_dict(document["results"].get(task)).get("loss,none")) for task in loss_tasks(notes))
        losses = frozenset(value for value in values if value is not None)
        stated = {key: notes[key] for key in ("arrays_sha256", "arrays_content", "tasks") if key in notes}
        fault = _fault_of_arrays(arrays, _stamp_of(arrays), canonical(stated), losses)
        yield arrays, fault, tasks_with_arrays(notes)
    date = path.stem.removeprefix("results_")
    for name, digest in as_dict(notes.get("samples_sha256")).items():
        samples = path.with_name(Path(name).name)
        tasks = {task for task in document["results"] if f"samples_{safe_name(task)}_{date}" == samples.stem}
        fault = _fault_of_samples(samples, _stamp_of(samples), str(digest))
        yield samples, fault, _with_groups(tasks, as_dict(document.get("group_subtasks")))


def _with_groups(tasks: set[str], members: Mapping[str, Any]) -> set[str]:
    """Return tasks with the groups that they are in; ``members`` lists what each group consists of."""
    groups = {group for group, names in members.items() if isinstance(names, list) and any(t in names for t in tasks)}
    return tasks if groups <= tasks else _with_groups(tasks | groups, members)


def _stamp_of(path: Path) -> FileStamp | None:
    with suppress(OSError, ValueError):
        return stamp_file(path)
    return None


@lru_cache(maxsize=100_000)
def _fault_of_arrays(path: Path, stamp: FileStamp | None, stated: str, losses: frozenset[float]) -> str | None:
    try:
        patiently(lambda: read_arrays(path, json.loads(stated), losses))
    except ArraysError as error:
        return error.fault
    return None


@lru_cache(maxsize=100_000)
def _fault_of_samples(path: Path, stamp: FileStamp | None, sha256: str) -> str | None:
    try:
        patiently(lambda: read_samples(path, sha256))
    except SamplesError as error:
        return error.fault
    return None


def identities_in(notes: Mapping[str, Any]) -> list[Identity]:
    """Return what a sweep has measured in a result file, by its notes there."""
    return [identity for identity in as_dicts(notes.get("identities")) if isinstance(identity.get("task"), str)]


def tasks_with_arrays(notes: Mapping[str, Any]) -> set[str]:
    """Return the tasks of a result file that have arrays; all that are probes where the notes do not tell."""
    measured = [identity["task"] for identity in identities_in(notes) if "settings" in identity]
    probes = as_dict(notes.get("tasks")) or {task: probe_of_task(task) for task in measured}
    names = as_dict(notes["arrays_content"]) if "arrays_content" in notes else None
    return {task for task, probe in probes.items() if names is None or any(n.startswith(f"{probe}/") for n in names)}


def _load_trusted(path: Path) -> dict[str, Any] | None:
    """Return a result file's content; None if it is cut, or not as it was written."""
    try:
        return patiently(lambda: parse_result_file(path))
    except BrokenResultError:
        return None
