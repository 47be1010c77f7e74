"""Check a tree of results: files, digests, arrays, identities, duplicates, strays, checkpoints that changed since."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import PART, folder_name, kind_of, user_path
from lmsat_plugin.results.digests import is_sweeps_folder
from lmsat_plugin.results.failures import FAILURES, read_failures
from lmsat_plugin.results.json_values import as_dict, as_dicts, as_number, as_text
from lmsat_plugin.results.reading import BrokenResultError, parse_result_file
from lmsat_plugin.results.tree_files import tree_files
from lmsat_plugin.settings import Settings, parse_settings
from lmsat_plugin.sweeps.fingerprint import Stamp, comparable, fingerprint, on_base, stamp_of, stamp_sha256
from lmsat_plugin.sweeps.store import claim_file, quarantine
from lmsat_plugin.sweeps.stored import canonical, files_of, identities_in, is_held, strays_of

SOUND = ("checkpoint", "version")
"""Kinds of problems of files that are as they were written: a sweep measures anew what they are about."""


@dataclass(frozen=True, kw_only=True)
class TreeProblem:
    """Something in a tree of results that is not as it should be."""

    path: Path
    kind: str
    """``unreadable``, ``digest``, ``arrays``, ``samples``, ``identity``, ``duplicate``, ``stray``, ``checkpoint``,
    ``version``."""
    what: str
    """What is wrong with it."""


@dataclass
class Verification:
    """What was checked, and what was found."""

    files: int = 0
    """Result files, their arrays and samples, and records of failures."""
    problems: list[TreeProblem] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _CheckedResult:
    """A result file that holds its digest."""

    path: Path
    document: dict[str, Any]
    parts: list[dict[str, Any]]
    """lmsat's notes, one dict for each corpus."""

    @property
    def supersedes(self) -> set[tuple[Path, str]]:
        """Files and tasks that this one replaces."""
        return {
            (self.path.with_name(Path(file).name), task)
            for part in self.parts
            for file, tasks in as_dict(part.get("supersedes")).items()
            if Path(file).name and isinstance(tasks, list)
            for task in tasks
            if isinstance(task, str)
        }

    @property
    def identities(self) -> list[dict[str, Any]]:
        """What a sweep has measured in it."""
        return [identity for part in self.parts for identity in identities_in(part)]


def verify(root: Path) -> Verification:
    """Check everything in a folder, or one result file. Nothing is changed.

    A checkpoint's weights are read only where its files have other sizes or times than its results note. Raises
    `LmsatError` for a path that is not there.
    """
    found = Verification()
    results: list[_CheckedResult] = []

    def skipped(folder: Path, reason: str) -> None:
        found.problems.append(TreeProblem(path=folder, kind="unreadable", what=f"the folder cannot be read: {reason}"))

    for path in (Path(file.path) for file in tree_files(root, skipped)):
        try:
            document = parse_result_file(path)
        except BrokenResultError as error:
            found.files += 1
            found.problems.append(TreeProblem(path=path, kind=error.kind, what=error.fault))
            continue
        if document is not None:
            found.files += 1
            parts = as_dicts(as_dict(document.get("config")).get("lmsat"))
            results.append(_CheckedResult(path=path, document=document, parts=parts))
    superseded = {pair for result in results for pair in result.supersedes}
    for result in results:
        for path, problem in _files(result, superseded):
            found.files += path.exists()
            found.problems += [problem] if problem else []
        found.problems += [*_identity(result), *_checkpoint(result, superseded), *_version(result, superseded)]
    found.problems += _duplicates(results, superseded)
    if root.is_dir():
        for path in (path for path in root.rglob(FAILURES) if is_sweeps_folder(path.parent)):
            found.files += 1
            try:
                read_failures(path)
            except LmsatError:
                found.problems.append(TreeProblem(path=path, kind="unreadable", what="it is cut or was changed"))
        found.problems += _strays(root)
    found.problems.sort(key=lambda problem: (str(problem.path), problem.kind))
    return found


def repair(problems: Iterable[TreeProblem]) -> tuple[list[Path], list[Path]]:
    """Put damaged files aside as ``*.quarantined``, and remove strays. Return what was put aside, and what removed.

    Raises `LmsatError` where the folder cannot be written.
    """
    aside, removed = [], []
    for problem in problems:
        path = problem.path
        if problem.kind in SOUND or not path.exists() or path.is_dir():
            continue
        try:
            if problem.kind == "stray":
                path.unlink()
                removed.append(path)
            else:
                aside.append(quarantine(path))
        except OSError as error:
            raise LmsatError(f"{path} cannot be renamed or removed ({error.strerror}): correct its rights") from error
    return aside, removed


def _files(result: _CheckedResult, superseded: set[tuple[Path, str]]) -> Iterator[tuple[Path, TreeProblem | None]]:
    """Yield the arrays and samples that a result names, each with what is wrong with it."""
    for part in result.parts:
        for path, fault, tasks in files_of(result.path, result.document, part):
            # Samples are not published along with results.
            if path.suffix == ".jsonl" and kind_of(path) is None and not is_sweeps_folder(path.parent):
                continue
            # What was put aside and measured again is missing here.
            needed = {(result.path, task) for task in tasks}
            if fault is None or (needed and needed <= superseded and not path.exists()):
                yield path, None
            else:
                kind = "samples" if path.suffix == ".jsonl" else "arrays"
                yield path, TreeProblem(path=path, kind=kind, what=f"{fault}; {result.path.name} names them")


def _identity(result: _CheckedResult) -> Iterator[TreeProblem]:
    """Yield how the identities by which a sweep knows its results differ from what the file holds, and where it is."""

    def problem(what: str) -> TreeProblem:
        return TreeProblem(path=result.path, kind="identity", what=what)

    if not result.identities:
        return
    document, notes = result.document, result.parts[0]
    checkpoint = as_dict(notes.get("checkpoint"))
    model, *inside = (as_text(checkpoint.get(name)) for name in ("model", "within", "revision"))
    names = [model or "", "/".join(name for name in inside if name)]
    folders = [result.path.absolute().parents[1].name, result.path.absolute().parent.name]
    if is_sweeps_folder(result.path.parent) and folders != [folder_name(name) for name in names]:
        yield problem(f"it is about {' '.join(names)} and lies in {'/'.join(folders)}")
    known = [checkpoint.get("commit"), checkpoint.get("identity")]
    if subfolder := as_text(checkpoint.get("subfolder")):
        known = [f"{checkpoint.get('commit')}/{subfolder}"]
    if as_dict(checkpoint.get("base")).get("identity"):
        known += [on_base(content, checkpoint) for content in known]
    held = {*document["results"], *as_dict(document.get("group_subtasks"))}
    versions = as_dict(document.get("versions"))
    for identity in result.identities:
        task = identity["task"]
        if task not in held:
            yield problem(f"it holds no values of {task}, which it says it measured")
        elif not is_held(document, notes, identity):
            yield problem(f"it holds no number, nor a null with its reason, of {task}, which it says it measured")
        if identity.get("weights") not in known:
            yield problem(f"{task} was measured on other weights than those of its checkpoint")
        stated = identity.get("version")
        # Those of tasks of lm-eval come with what else makes the task.
        version = stated.get("version") if isinstance(stated, dict) else stated
        # A group may have none.
        if task in versions and versions[task] != ("N/A" if version is None else version):
            yield problem(f"{task} has version {versions[task]} among its values and {version} in its identity")


def _checkpoint(result: _CheckedResult, superseded: set[tuple[Path, str]]) -> Iterator[TreeProblem]:
    """Yield a problem where the checkpoint's folder holds other files now than those measured."""
    tasks = {(result.path, identity["task"]) for identity in result.identities}
    checkpoint = as_dict(result.parts[0].get("checkpoint")) if tasks - superseded else {}
    arguments = as_dict(as_dict(result.document.get("config")).get("model_args"))
    pretrained = as_text(arguments.get("pretrained"))
    if pretrained is None or as_text(checkpoint.get("identity")) is None:
        return
    if average := as_dict(checkpoint.get("average")):
        # Those on the Hub have no identity.
        parts = [part for part in as_dicts(average.get("of")) if part.keys() >= {"pretrained", "identity"}]
        faults = [_fault(str(part["pretrained"]), part, "averaged") for part in parts]
    else:
        faults = [_fault(pretrained, checkpoint, "measured")]
    for fault in filter(None, faults):
        yield TreeProblem(path=result.path, kind="checkpoint", what=fault)


def _fault(pretrained: str, noted: Mapping[str, Any], done: str) -> str | None:
    """Return what is wrong with a checkpoint's folder by what is noted of it; None where it is as it was, or gone."""
    try:
        folder = user_path(pretrained)
    except LmsatError:
        return None  # nobody here has that home folder

    def is_noted(stamp: Stamp) -> bool:
        if "files_sha256" in noted:
            return stamp_sha256(stamp) == noted["files_sha256"]
        return stamp == (comparable(noted_files) if "conversion" in noted else noted_files)

    noted_files = as_dict(noted.get("files"))
    if "conversion" in noted:
        if kind_of(folder) is not None and not is_noted(comparable(stamp_of(folder, whole=True))):
            return f"{folder} holds other files now than were converted"
    elif kind_of(folder) == "folder" and not is_noted(stamp_of(folder)):
        now, reason = _identity_of(folder)
        if now != noted["identity"]:
            return reason or f"{folder} holds other files now than were {done}"
    return None


def _version(result: _CheckedResult, superseded: set[tuple[Path, str]]) -> Iterator[TreeProblem]:
    """Yield the results of probes that these have in another version, or with other settings, now.

    What is known of a probe that is not installed here stands.
    """
    for part in result.parts:
        for task, name in as_dict(part.get("tasks")).items():
            probe, noted = _probes().get(str(name)), as_dict(as_dict(part.get("probes")).get(str(name)))
            if probe is None or not noted or (result.path, task) in superseded:
                continue
            version, settings_type, switches = probe
            stated, settings = noted.get("version", version), as_dict(noted.get("settings"))
            what = None
            if stated != version:
                what = f"{task} is of version {stated} of the probe '{name}', and installed is version {version}"
            elif unknown := sorted(settings.keys() ^ (settings_type.model_fields.keys() - switches)):
                lacks = "has no setting" if unknown[0] in settings else "has a setting more,"
                what = f"the probe '{name}' of {task} {lacks} '{unknown[0]}' now"
            else:
                with suppress(LmsatError):
                    parse_settings(settings_type, settings)
                    continue
                what = f"the probe '{name}' of {task} takes other settings now"
            yield TreeProblem(path=result.path, kind="version", what=what)


@cache
def _probes() -> dict[str, tuple[int, type[Settings], frozenset[str]]]:
    # They import PyTorch, which a tree without results of probes does not need.
    from lmsat_plugin.plugins import plugins

    probes = plugins().probes.items()
    return {name: (probe.version, probe.settings_type, frozenset(probe.additions)) for name, probe in probes}


@cache
def _identity_of(folder: Path) -> tuple[str | None, str | None]:
    """Return what identifies a checkpoint's folder, or why it has nothing that does."""
    try:
        return fingerprint(folder).identity, None
    except LmsatError as error:
        return None, f"{folder} cannot be measured now ({error})"


def _duplicates(results: list[_CheckedResult], superseded: set[tuple[Path, str]]) -> Iterator[TreeProblem]:
    """Yield the older ones of files that hold the same results of a checkpoint, where none says that it replaces."""
    newest: dict[tuple[Path, str], Path] = {}
    duplicates: dict[Path, Path] = {}

    def age(result: _CheckedResult) -> tuple[float, bool, str]:
        own = result.path.stem.removeprefix("results_")
        is_original = any(own in (as_text(part.get("arrays")) or "") for part in result.parts)
        return as_number(result.document.get("date")) or 0.0, is_original, result.path.name

    for result in sorted(results, key=age, reverse=True):
        for identity in result.identities:
            if (result.path, identity.get("task")) in superseded:
                continue
            other = newest.setdefault((result.path.parent, canonical(identity)), result.path)
            if other != result.path:
                duplicates.setdefault(result.path, other)
    for path, other in duplicates.items():
        yield TreeProblem(path=path, kind="duplicate", what=f"{other.name} holds the same results")


def _strays(root: Path) -> Iterator[TreeProblem]:
    """Yield what dead processes have left. What a sweep is at work on is left alone."""
    for name, _, files in os.walk(root):
        folder = Path(name)
        found = [folder / file for file in files if file.startswith(".") and file.endswith(PART)]
        if is_sweeps_folder(folder):
            found = strays_of(folder)
        if found and not _is_claimed(folder):
            yield from (
                TreeProblem(path=path, kind="stray", what="a process that was killed left it") for path in found
            )


def _is_claimed(folder: Path) -> bool:
    """Return whether a process is at work on the checkpoint whose results are in a folder."""
    path = claim_file(folder)
    if path.exists():
        with suppress(OSError):
            lock = FileLock(path, timeout=0)
            try:
                lock.acquire()
            except Timeout:
                return True
            lock.release()
    return False
