"""The results of sweeps: a tree of lm-eval result files, what it says is done, and who is at work on what.

``<output>/<model>/<revision>/results_<date>.json`` is what lm-eval itself would write, with provenance under
``config.lmsat``; beside it are the arrays, and ``failures.json`` where something could not be measured.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors.numpy import save as to_safetensors

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import PART, check_writable, safe_name, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

logger = logging.getLogger(__name__)

FAILURES = "failures.json"
_QUARANTINED = ".quarantined"
_LONGEST_NAME = 100

Identity = dict[str, Any]
"""All that a result depends on: weights, task, version, corpus, settings. Equal identities, equal results."""


def folder_name(name: str) -> str:
    """Return the name of a model's or a revision's folder: readable, safe, and another for another name."""
    safe = safe_name(name)
    if safe == name.replace("/", "__") and len(safe) <= _LONGEST_NAME:
        return safe
    return f"{safe[:_LONGEST_NAME]}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


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
    """What the result files say of the checkpoint: commit, weights, files."""
    broken: list[Path] = field(default_factory=list)
    """Result files that are cut or changed."""


class Claim:
    """A checkpoint that this process alone works on. The system frees it if the process dies."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def note(self, text: str) -> None:
        """Leave word of what this process is at, for whoever finds the claim after its death."""
        with suppress(OSError):
            Path(self._lock.lock_file).write_text(json.dumps({"pid": os.getpid(), "at": text}), "utf-8")

    def release(self) -> None:
        """Let others have it."""
        # Removed while it is held: whoever waits for the file that is gone opens a new one.
        with suppress(OSError):
            Path(self._lock.lock_file).unlink()
        self._lock.release()


class Store:
    """The results of one sweep's output folder.

    Raises:
        LmsatError: If nothing can be written there.
    """

    def __init__(self, output: Path) -> None:
        self.output = output.expanduser()
        self.private = self.output / ".lmsat"
        """Claims and downloads."""

    def prepare(self) -> None:
        """Make the folders."""
        check_writable(self.output)
        check_writable(self.private / "claims")

    def folder(self, model: str, revision: str) -> Path:
        """Return where a checkpoint's results are."""
        return self.output / folder_name(model) / folder_name(revision)

    def claim(self, model: str, revision: str) -> Claim | None:
        """Claim a checkpoint; None if another process has it."""
        path = self.private / "claims" / f"{folder_name(model)}--{folder_name(revision)}.lock"
        lock = FileLock(path, timeout=0, thread_local=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            return None
        except OSError as error:
            raise LmsatError(
                f"cannot write {path} ({error.strerror}): free space or choose another output folder"
            ) from error
        return Claim(lock)

    def died_at(self, pid: int) -> str | None:
        """Return what a process was measuring when it died."""
        for path in (self.private / "claims").glob("*.lock"):
            with suppress(OSError, ValueError, KeyError):
                said = json.loads(path.read_text("utf-8"))
                if said["pid"] == pid:
                    return said["at"]
        return None

    def clean_claims(self) -> None:
        """Remove the claims that dead processes have left."""
        for path in (self.private / "claims").glob("*.lock"):
            lock = FileLock(path, timeout=0, thread_local=False)
            with suppress(Timeout, OSError):
                lock.acquire()
                Claim(lock).release()

    def read(self, model: str, revision: str) -> Stored:
        """Return what is stored of a checkpoint. A file that cannot be trusted counts for nothing."""
        stored = Stored(self.folder(model, revision))
        for path in sorted(stored.folder.glob("results_*.json")):
            document = _load_trusted(path)
            if document is None:
                stored.broken.append(path)
                continue
            ours = document["config"].get("lmsat")
            if not isinstance(ours, dict) or "identities" not in ours:
                continue  # plain lm-eval wrote it
            stored.checkpoints.append(ours.get("checkpoint") or {})
            stored.done.update({canonical(identity): path.name for identity in ours["identities"]})
            stored.runs[path.name] = ours.get("run", "")
        with suppress(OSError, ValueError, TypeError, KeyError):
            record = json.loads((stored.folder / FAILURES).read_text("utf-8"))
            for failure in record["failures"]:
                stored.failed[canonical(failure["identity"])] = str(failure["error"])
            stored.checkpoints.append(record["checkpoint"])
            stored.failed_run = record.get("run")
        return stored

    def mend(self, stored: Stored) -> None:
        """Put aside what cannot be trusted, and remove what a kill has left. The checkpoint has to be claimed."""
        for path in stored.broken:
            with suppress(OSError):
                path.rename(_free(path.with_name(path.name + _QUARANTINED)))
                logger.warning(
                    "%s is cut or was changed by hand: put aside as *%s and measured again",
                    path,
                    _QUARANTINED,
                )
        stored.broken = []
        for path in stored.folder.glob(f".*{PART}"):
            path.unlink(missing_ok=True)
        for path in stored.folder.glob("arrays_*.safetensors"):
            stem = "results_" + path.stem.removeprefix("arrays_")
            if not any(stored.folder.glob(f"{stem}.json*")):
                path.unlink(missing_ok=True)

    def write(
        self,
        model: str,
        revision: str,
        results: dict[str, Any],
        arrays: Mapping[str, np.ndarray],
        identities: Iterable[Identity],
        checkpoint: Mapping[str, Any],
        supersedes: Mapping[str, list[str]],
        run: str,
    ) -> Path:
        """Write one result file, its arrays and samples first, so that the file is there only with all of them.

        Raises `LmsatError` if it cannot be written.
        """
        folder = self.folder(model, revision)
        stamp, path = _free_stamp(folder)
        ours = results["config"].setdefault("lmsat", {})
        ours.update(checkpoint=dict(checkpoint), identities=list(identities), run=run)
        if supersedes:
            ours["supersedes"] = dict(supersedes)
        if arrays:
            ours["arrays"] = f"arrays_{stamp}.safetensors"
            data = to_safetensors({key: value.copy() for key, value in arrays.items()})
            write_atomically(folder / ours["arrays"], data)
        for task, samples in (results.pop("samples", None) or {}).items():
            lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
            name = f"samples_{safe_name(task)}_{stamp}.jsonl"
            write_atomically(folder / name, lines.encode("utf-8", "surrogatepass"))
        ours["sha256"] = _digest(results)
        text = json.dumps(results, indent=2, ensure_ascii=False)
        write_atomically(path, text.encode("utf-8", "surrogatepass"))
        return path

    def write_failures(
        self,
        stored: Stored,
        failures: Iterable[tuple[Identity, str]],
        checkpoint: Mapping[str, Any],
        run: str,
    ) -> None:
        """Replace the record of what could not be measured of a checkpoint; without failures there is none.

        Raises `LmsatError` if it cannot be written.
        """
        path = stored.folder / FAILURES
        entries = [{"identity": identity, "error": error} for identity, error in failures]
        if entries:
            record = {"checkpoint": dict(checkpoint), "run": run, "failures": entries}
            write_atomically(path, json.dumps(record, indent=2, default=str).encode())
        else:
            path.unlink(missing_ok=True)


def _load_trusted(path: Path) -> dict[str, Any] | None:
    """Return a result file's content; None if it is cut, or not as it was written."""
    try:
        document = json.loads(path.read_bytes())
        ours = document["config"].get("lmsat")
        if not isinstance(document["results"], dict):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if isinstance(ours, dict) and "sha256" in ours:
        said = ours.pop("sha256")
        return document if said == _digest(document) else None
    return document


def _digest(document: dict[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _free_stamp(folder: Path) -> tuple[str, Path]:
    """Return the date as lm-eval puts it into names, and the result file of that name, which is not there yet."""
    now = datetime.now()
    while True:
        stamp = now.isoformat(timespec="microseconds").replace(":", "-")
        path = folder / f"results_{stamp}.json"
        # A clock may go back.
        if not path.exists():
            return stamp, path
        now += timedelta(microseconds=1)


def _free(path: Path) -> Path:
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free
