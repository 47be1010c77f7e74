"""The output folder of a sweep: where each checkpoint's results are, how they are written, mended and claimed.

``<output>/<model>/<revision>/results_<date>.json`` is what lm-eval itself would write, with provenance under
``config.lmsat``; beside it are the arrays, and ``failures.json`` where something could not be measured.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import check_writable, folder_name, read_file, safe_name, user_path, write_atomically
from lmsat_plugin.passing import patiently
from lmsat_plugin.results.array_files import pack_arrays
from lmsat_plugin.results.digests import PRIVATE, with_digest
from lmsat_plugin.results.failures import FAILURES, Failures, read_failures
from lmsat_plugin.results.json_values import as_dict, as_text
from lmsat_plugin.results.reading import parse_result_file
from lmsat_plugin.series.checkpoint import Checkpoint
from lmsat_plugin.sweeps.config import SweepConfig, config_to_yaml
from lmsat_plugin.sweeps.stored import (
    Identity,
    Stored,
    places_otherwise,
    read_stored,
    software,
    stamp_of_results,
    strays_of,
)

logger = logging.getLogger(__name__)

QUARANTINED = ".quarantined"
"""The ending of a file that was put aside because it is damaged."""
DEADLY = 2
"""A checkpoint that has ended so many processes or launches is measured last."""


class Claim:
    """A checkpoint that this process alone works on, by a lock that the system frees if the process dies."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock
        # A file of its own: filelock below 4.0 empties a lock file when another process asks for the lock.
        self._note = Path(lock.lock_file).with_suffix(".json")
        self.ended: list[str] = []
        """The runs, one for each time, that ended while they measured the checkpoint."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            noted = json.loads(self._note.read_text("utf-8"))
            self.ended = [str(run) for run in [*noted.get("ended", []), noted.get("run")] if run is not None]

    def note(self, label: str, run: str = "") -> None:
        """Note what this process measures, for whoever finds the claim after its death."""
        self._write({"pid": os.getpid(), "at": label, "run": run, "ended": self.ended})

    def _write(self, note: dict[str, Any]) -> None:
        with suppress(OSError):
            self._note.write_text(json.dumps(note), "utf-8")

    def release(self, *, lost: bool = False, forget: bool = True) -> None:
        """Let others have it.

        A claim that is ``lost`` counts as one whose process has died. Without ``forget`` the deaths before it are kept.
        """
        if lost:
            pass
        elif self.ended and not forget:
            self._write({"ended": self.ended})
        else:
            with suppress(OSError):
                self._note.unlink()
        # Removed while it is held: whoever waits for the file that is gone opens a new one.
        with suppress(OSError):
            Path(self._lock.lock_file).unlink()
        self._lock.release()


@dataclass(frozen=True, kw_only=True)
class NewResult:
    """What one call of lm-eval measured of a checkpoint, to be written as one result file."""

    results: dict[str, Any]
    """What lm-eval writes, ``samples`` among it if they are kept."""
    arrays: Mapping[str, np.ndarray]
    identities: Sequence[Identity]
    """What was measured."""
    supersedes: Mapping[str, list[str]]
    """The tasks of other result files that this one replaces."""
    checkpoint: Mapping[str, Any]
    """What is noted of the checkpoint: step, commit, weights, files."""
    run: str
    """The run that measured it."""


class Store:
    """The results of one sweep's output folder. Methods that write raise `LmsatError` where they cannot."""

    def __init__(self, output: Path) -> None:
        self.output = user_path(output)
        self.private = self.output / PRIVATE
        """Claims, downloads and the logs of jobs."""
        self._claims = self.private / "claims"
        self._seen = self.private / "seen"
        """Files that hold what results were made of, though they were copied or touched since."""
        self._handle: int | None = None
        """The output folder, kept open so that no other one gets its number."""

    def prepare(self) -> None:
        """Make the folders."""
        check_writable(self.output)
        check_writable(self._claims)
        if self._handle is None:
            self._handle = os.open(self.output, os.O_RDONLY)
            weakref.finalize(self, os.close, self._handle)

    def keep_config(self, config: SweepConfig) -> Path:
        """Return a file of the sweep's configuration in the private place, for its workers.

        They have the same plan then, whatever becomes of the file or the folders that the configuration was made of.
        """
        data = config_to_yaml(config).encode()
        path = self.private / "configurations" / f"{hashlib.sha256(data).hexdigest()[:16]}.yaml"
        write_atomically(path, data)
        return path

    def check_there(self) -> None:
        """Raise `LmsatError` if the output folder is not the one any more that `prepare` found."""
        if self._handle is None:
            return
        try:
            there = os.path.samestat(os.fstat(self._handle), self.output.stat())
        except OSError:
            there = False
        if not there:
            raise LmsatError(
                f"the output folder {self.output} was removed or replaced while the sweep ran, and results with it: "
                "start the sweep again"
            )

    def folder(self, checkpoint: Checkpoint) -> Path:
        """Return where a checkpoint's results are."""
        return self.output / folder_name(checkpoint.model) / folder_name(checkpoint.name)

    def claim(self, checkpoint: Checkpoint) -> Claim | None:
        """Claim a checkpoint; None if another process has it."""
        return _claim(self._lock_of(checkpoint))

    def died_at(self, pid: int) -> str | None:
        """Return what a process was measuring when it died."""
        for path in self._claims.glob("*.json"):
            with suppress(OSError, ValueError, KeyError):
                noted = json.loads(path.read_text("utf-8"))
                if noted["pid"] == pid:
                    return noted["at"]
        return None

    def clean_claims(self) -> None:
        """Remove the claims that dead processes have left, but not what they note of the deaths."""
        for path in self._claims.glob("*.lock"):
            with suppress(LmsatError):
                if (left := _claim(path)) is not None:
                    left.release(forget=False)

    def tidy(self, checkpoint: Checkpoint, stored: Stored) -> None:
        """Remove what is left of processes that died at a checkpoint, or could not mend it, and nothing else to do.

        Results that note another place in training than the checkpoint's are restated.
        """
        with suppress(OSError):
            moved = stored.is_placed_otherwise(checkpoint.place)
            left = stored.damaged or self._lock_of(checkpoint).with_suffix(".json").exists()
            if not (moved or left or strays_of(stored.folder)):
                return
            if (claim := self.claim(checkpoint)) is not None:
                stored = self.read(checkpoint)
                self.mend(stored)
                self.restate(stored, checkpoint.place)
                claim.release()

    def _lock_of(self, checkpoint: Checkpoint) -> Path:
        return claim_file(self.folder(checkpoint))

    def read(self, checkpoint: Checkpoint) -> Stored:
        """Return what is stored of a checkpoint."""
        stored = read_stored(self.folder(checkpoint))
        with suppress(OSError, ValueError, RecursionError):
            seen = as_dict(json.loads(read_file(self._seen_of(checkpoint))))
            # What is noted there is believed of the files, and of the weights only what results say.
            if any(_same_weights(seen, known) for known in stored.checkpoints):
                stored.checkpoints.append(seen)
        return stored

    def note_seen(self, checkpoint: Checkpoint, stored: Stored, noted: Mapping[str, Any]) -> None:
        """Note the stamp of files that were hashed, if results have other stamps of the very same content.

        The next sweep need not hash them again then. ``noted`` is what results would note of the checkpoint.
        """
        if any(_same_weights(noted, known) for known in stored.checkpoints):
            with suppress(LmsatError):
                write_atomically(self._seen_of(checkpoint), json.dumps(dict(noted)).encode())

    def note_reference(self, checkpoint: Checkpoint, stamp: Any, weights: str) -> None:
        """Note what identifies the weights of a reference that has no results, with what its files looked like."""
        with suppress(LmsatError):
            write_atomically(self._reference_of(checkpoint), json.dumps({"files": stamp, "identity": weights}).encode())

    def recall_reference(self, checkpoint: Checkpoint, stamp: Any) -> str | None:
        """Return what was noted of the very same files; None if nothing was."""
        with suppress(OSError, ValueError, RecursionError):
            noted = as_dict(json.loads(read_file(self._reference_of(checkpoint))))
            if noted.get("files") == stamp:
                return as_text(noted.get("identity"))
        return None

    def _reference_of(self, checkpoint: Checkpoint) -> Path:
        return self._seen_of(checkpoint).with_suffix(".reference.json")

    def _seen_of(self, checkpoint: Checkpoint) -> Path:
        return self._seen / self._lock_of(checkpoint).with_suffix(".json").name

    def stamp(self, checkpoint: Checkpoint) -> Any:
        """Return something that is the same while `read` returns the same, without opening a file."""
        return stamp_of_results(self.folder(checkpoint))

    def mend(self, stored: Stored) -> None:
        """Put damaged files aside, and remove what a kill has left. The checkpoint has to be claimed."""
        for path, fault in stored.damaged.items():
            try:
                if path.exists():
                    patiently(partial(quarantine, path))
                    logger.warning("%s: put aside as *%s and measured again", fault, QUARANTINED)
                else:
                    logger.warning("%s: measured again", fault)
            except OSError as error:
                logger.warning("%s: cannot be put aside (%s), and is measured again: remove it", path, error.strerror)
        stored.damaged = {}
        with suppress(OSError):
            for path in strays_of(stored.folder):
                path.unlink(missing_ok=True)

    def restate(self, stored: Stored, place: Mapping[str, Any]) -> None:
        """Have the results of a checkpoint say where in its training it lies. The checkpoint has to be claimed.

        That is read from names and states, which can be read anew, and was not measured.
        """
        if not stored.is_placed_otherwise(place):
            return
        for name in stored.runs:
            path = stored.folder / name
            document = parse_result_file(path)
            notes = as_dict(as_dict(document).get("config"))["lmsat"] if document else {}
            if document is not None and places_otherwise(as_dict(notes.get("checkpoint")), place):
                notes["checkpoint"].update(place)
                notes.pop("sha256", None)
                write_atomically(path, with_digest(document))
        record = read_failures(stored.folder / FAILURES)
        if record is not None and places_otherwise(record.checkpoint, place):
            restated = replace(record, checkpoint={**record.checkpoint, **place})
            write_atomically(stored.folder / FAILURES, restated.to_bytes())

    def pack(self, checkpoint: Checkpoint, new: NewResult) -> dict[Path, bytes]:
        """Return the files of one result, for `write`: its arrays and samples, and last the result file."""
        folder = self.folder(checkpoint)
        stamp, path = _free_stamp(folder)
        files = {}
        notes = new.results["config"].setdefault("lmsat", {})
        notes.update(checkpoint=dict(new.checkpoint), identities=list(new.identities), run=new.run)
        if new.supersedes:
            notes["supersedes"] = dict(new.supersedes)
        if new.arrays:
            data, binding = pack_arrays(new.arrays)
            notes.update(arrays=f"arrays_{stamp}.safetensors", **binding)
            files[folder / notes["arrays"]] = data
        for task, samples in (new.results.pop("samples", None) or {}).items():
            lines = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
            name = f"samples_{safe_name(task)}_{stamp}.jsonl"
            files[folder / name] = data = lines.encode("utf-8", "surrogatepass")
            notes.setdefault("samples_sha256", {})[name] = hashlib.sha256(data).hexdigest()
        files[path] = with_digest(new.results)
        return files

    def write(self, files: Mapping[Path, bytes]) -> None:
        """Write the files of one result in their order, so that the result file is there only with all others.

        Where that fails it can be tried again: the files' names are the same.
        """
        self.check_there()
        for path, data in files.items():
            write_atomically(path, data)

    def write_failures(
        self, stored: Stored, failures: Iterable[tuple[Identity, str]], *, checkpoint: Mapping[str, Any], run: str
    ) -> None:
        """Replace the record of what could not be measured of a checkpoint; without failures there is none.

        ``checkpoint`` and ``run`` are as in `NewResult`.
        """
        self.check_there()
        path = stored.folder / FAILURES
        reasons = list(failures)
        if reasons:
            record = Failures(
                checkpoint=dict(checkpoint), run=run, date=time.time(), software=software(), reasons=reasons
            )
            write_atomically(path, record.to_bytes())
        else:
            path.unlink(missing_ok=True)


def claim_file(results: Path) -> Path:
    """Return the lock by which a checkpoint is claimed whose results are in a folder."""
    model, revision = results.absolute().parts[-2:]
    return results.absolute().parents[1] / PRIVATE / "claims" / f"{model}--{revision}.lock"


def _claim(path: Path) -> Claim | None:
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


def _same_weights(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two notes of a checkpoint are about the same content of its files."""
    keys = ("identity", "weights_sha256")
    return all(one.get(key) and one.get(key) == other.get(key) for key in keys)


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


def quarantine(path: Path) -> Path:
    """Put a file aside, under another name beside it, and return that."""
    return path.rename(_free(path.with_name(path.name + QUARANTINED)))


def _free(path: Path) -> Path:
    """Return the path, with a number if it is taken."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], numbered) if not free.exists())
