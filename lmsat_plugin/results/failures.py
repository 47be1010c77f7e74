"""What a sweep could not measure of a checkpoint, ``failures.json``; runs that diverged become values that are NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from lmsat_plugin.errors import DIVERGED, LmsatError
from lmsat_plugin.files import read_file
from lmsat_plugin.results.digests import sha256_of_content
from lmsat_plugin.results.json_values import as_dict, as_integer, as_number, as_text, clean
from lmsat_plugin.results.origins import Naming, Origin, read_origin, read_settings
from lmsat_plugin.results.reading import Rest, ResultFile, TaskResult
from lmsat_plugin.results.tree_files import TreeFile

FAILURES = "failures.json"
ADDITION = "addition"
"""In an identity the group of values that it is about, of those that a probe has gained without a new version."""
_NOT_COMPARED = {"sha256", "dtype", "window"}
"""Settings that a failure does not know, or knows otherwise than a result."""
_MARKS = DIVERGED.encode(), b'"diverged"'
"""What a record of a checkpoint that diverged holds: both, as a rule."""
_LOSS = ("loss", "none", math.nan, math.nan, False)
"""The metric of a run's loss, as `TaskResult.metrics` holds it."""


@dataclass(frozen=True, kw_only=True)
class Failures:
    """The content of ``failures.json``."""

    checkpoint: dict[str, Any]
    """What is noted of the checkpoint: model, revision, step, files."""
    run: str | None
    """The run that tried it last."""
    date: float | None
    """When, in seconds since 1970."""
    software: dict[str, Any] | None = None
    """The versions that it was tried with; None in records of old versions."""
    reasons: Sequence[tuple[dict[str, Any], str]]
    """What identifies each result that could not be measured, and why."""

    def to_bytes(self) -> bytes:
        """Return the file's content, with its digest."""
        entries = [
            {"identity": identity, "error": error, "kind": "diverged" if is_diverged(error) else "failed"}
            for identity, error in self.reasons
        ]
        record = {"checkpoint": self.checkpoint, "run": self.run, "date": self.date, "failures": entries}
        if self.software is not None:
            record["software"] = self.software
        # As it will be read: what JSON does not know is text there.
        record = json.loads(json.dumps(record, default=str))
        return _with_digest(record)


def is_diverged(reason: str) -> bool:
    """Return whether the reason of a failure is that the run diverged."""
    return reason.startswith(DIVERGED)


def read_failures(path: Path) -> Failures | None:
    """Return the content of a file ``failures.json``, of any version; None if there is none.

    Raises `LmsatError` for a file that is cut, or not as it was written.
    """
    try:
        data = read_file(path)
        record = json.loads(data)
        stated = record.pop("sha256", None)
        reasons = [(dict(entry["identity"]), str(entry["error"])) for entry in record["failures"]]
        checkpoint = dict(record["checkpoint"])
        # Versions that wrote no kinds wrote no digest.
        needs_digest = stated is not None or any("kind" in entry for entry in record["failures"])
        holds = not needs_digest or data == _with_digest(record)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LmsatError(f"{path} is cut or is no record of failures: remove it") from error
    if not holds:
        raise LmsatError(f"{path} was changed by hand: remove it")
    return Failures(
        checkpoint=checkpoint,
        run=as_text(record.get("run")),
        date=as_number(record.get("date")),
        software=as_dict(record["software"]) if "software" in record else None,
        reasons=reasons,
    )


def _with_digest(record: Mapping[str, Any]) -> bytes:
    """Return the content of a file with this record; of what was written so, each byte can be checked."""
    return json.dumps({**record, "sha256": sha256_of_content(record)}, indent=2).encode()


def diverged_files(
    found: Iterable[TreeFile], naming: Naming, measured: Iterable[ResultFile]
) -> tuple[list[ResultFile], list[str]]:
    """Return the results of checkpoints that diverged, whose values are NaN, and warnings of broken records.

    Args:
        found: Files, of which those with the name ``failures.json`` are read.
        naming: How names state steps.
        measured: The result files of the tree. The settings of a result that diverged are those of the most similar
            result of the same model, task and corpus.
    """
    files: list[ResultFile] = []
    warnings: list[str] = []
    of_models: dict[str, list[TaskResult]] | None = None
    for file in found:
        path = Path(file.path)
        if path.name != FAILURES:
            continue
        try:
            # Another tool's file of this name is passed over.
            data = read_file(path)
            record = read_failures(path) if any(mark in data for mark in _MARKS) else None
        except OSError as error:
            warnings.append(f"{path} is skipped ({error.strerror}): correct its rights")
            continue
        except LmsatError as error:
            warnings.append(f"Left out: {error}")
            continue
        if record is None:
            continue
        if of_models is None:
            of_models = {}
            for task in (task for result in measured for task in result.tasks):
                of_models.setdefault(task.origin.model, []).append(task)
        result = _diverged_file(record, file, naming, of_models)
        files += [] if result is None else [result]
    return files, warnings


def _diverged_file(
    record: Failures, file: TreeFile, naming: Naming, of_models: Mapping[str, list[TaskResult]]
) -> ResultFile | None:
    reasons = [(identity, error) for identity, error in record.reasons if is_diverged(error)]
    if not reasons:
        return None
    path = Path(file.path)
    notes = {"checkpoint": record.checkpoint, "diverged": {clean(str(i.get("task"))): e for i, e in reasons}}
    origin = read_origin({"date": record.date}, [notes], path, name=clean(file.name), naming=naming)
    of_model = of_models.get(origin.model, [])
    identities = [identity for identity, _ in reasons]
    # What a probe has gained is a record of its own, of metrics that the task's own record has as well.
    whole = [each for each in identities if ADDITION not in each or _without(each, ADDITION) not in identities]
    tasks = [task for identity in whole if (task := _diverged(origin, identity, of_model)) is not None]
    rest = Rest(provenance=[notes], header={"config": {}}, datasets={})
    return ResultFile(path=path, origin=origin, tasks=tasks, rest=rest)


def _without(identity: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name != key}


def _place(origin: Origin) -> PurePosixPath:
    return PurePosixPath(origin.path).parent


def _diverged(origin: Origin, identity: Mapping[str, Any], of_model: Iterable[TaskResult]) -> TaskResult | None:
    """Return one result that diverged; None for a task whose metrics no other checkpoint tells."""
    task, text = clean(str(identity.get("task"))), as_dict(identity.get("corpus"))
    corpus = as_text(text.get("corpus"))
    shots = as_integer(identity.get("num_fewshot"))
    if text:
        text = {"prefix": "document", **text}
    settings = read_settings({**text, **as_dict(identity.get("settings")), **as_dict(identity.get("model_args"))})
    settings.pop("corpus", None)

    def differences(other: TaskResult) -> int:
        theirs = {**other.corpus_settings, **other.model_settings}
        keys = (settings.keys() | theirs.keys()) - _NOT_COMPARED
        return sum(settings.get(key) != theirs.get(key) for key in keys)

    alike = [other for other in of_model if other.task == task and other.corpus == corpus and other.metrics]
    alike = [other for other in alike if shots is None or other.num_fewshot == shots]
    other = min(alike, key=differences, default=None)
    if other is None and task != "lmsat_loss":
        return None
    # What has no direction, such as a number of tokens, does not diverge.
    metrics = [_LOSS] if other is None else [m for m in other.metrics if m[4] is not None]
    if other is not None:
        # Results of the weights that were there before stand no more.
        old = [o for o in alike if _place(o.origin) == _place(origin) and differences(o) == differences(other)]
        supersedes = {PurePosixPath(o.origin.path).name: {task} for o in old}
        origin = replace(origin, sizes=other.origin.sizes, supersedes=supersedes)
    return TaskResult(
        origin=origin,
        task=task,
        corpus=corpus,
        num_fewshot=shots if other is None else other.num_fewshot,
        n_samples=None,
        model_settings={} if other is None else other.model_settings,
        corpus_settings={} if other is None else other.corpus_settings,
        metrics=[(name, chosen, math.nan, math.nan, higher) for name, chosen, _, _, higher in metrics],
        part=0,
    )
