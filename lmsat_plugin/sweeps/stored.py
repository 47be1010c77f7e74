"""What the result files of one checkpoint say: which results are there, which failed, which files are damaged."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmsat_plugin.results.json_values import as_dict, as_number, as_text
from lmsat_plugin.results.reading import NO_METRICS

FAILURES = "failures.json"

Identity = dict[str, Any]
"""All that a result depends on: weights, task, version, corpus, settings. Equal identities, equal results."""


def canonical(identity: Identity) -> str:
    """Return the one text of an identity, to compare it by."""
    return json.dumps(identity, sort_keys=True, default=str)


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
    damaged: list[Path] = field(default_factory=list)
    """Result files that are cut or were changed by hand."""


def read_stored(folder: Path) -> Stored:
    """Return what is stored in a checkpoint's folder. A file that cannot be trusted counts for nothing."""
    stored = Stored(folder)
    for path in sorted(folder.glob("results_*.json")):
        document = _load_trusted(path)
        if document is None:
            stored.damaged.append(path)
            continue
        notes = document["config"].get("lmsat")
        if not isinstance(notes, dict) or "identities" not in notes:
            continue  # plain lm-eval wrote it
        stored.checkpoints.append(notes.get("checkpoint") or {})
        held = [identity for identity in notes["identities"] if _is_held(document, notes, identity)]
        stored.done.update({canonical(identity): path.name for identity in held})
        stored.runs[path.name] = notes.get("run", "")
    with suppress(OSError, ValueError, TypeError, KeyError):
        record = json.loads((folder / FAILURES).read_text("utf-8"))
        for failure in record["failures"]:
            stored.failed[canonical(failure["identity"])] = str(failure["error"])
        stored.checkpoints.append(record["checkpoint"])
        stored.failed_run = record.get("run")
    return stored


def _is_held(document: dict[str, Any], notes: dict[str, Any], identity: Identity) -> bool:
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


def stamp_of_results(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of the files that `read_stored` reads: it returns the same while they are the same."""
    stamp = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == FAILURES or entry.name.startswith("results_"):
                stat = entry.stat()
                stamp.append((entry.name, stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(stamp))


def digest(document: dict[str, Any]) -> str:
    """Return the SHA-256 of a result file's content, by which it is trusted."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _load_trusted(path: Path) -> dict[str, Any] | None:
    """Return a result file's content; None if it is cut, or not as it was written."""
    try:
        document = json.loads(path.read_bytes())
        notes = document["config"].get("lmsat")
        if not isinstance(document["results"], dict):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if isinstance(notes, dict) and "sha256" in notes:
        stated = notes.pop("sha256")
        return document if stated == digest(document) else None
    return document
