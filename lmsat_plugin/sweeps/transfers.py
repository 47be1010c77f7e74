"""Fetch files of the Hub: in threads that can be given up where a server trickles, and compared with what it states."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import logging
import queue
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import tqdm as hub_tqdm
from tqdm import tqdm

from lmsat_plugin.passing import SERVER, passing, pause_before

logger = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds after which a transfer is given up that is slower than `LEAST_RATE`."""
LEAST_RATE = 10_000.0
"""Bytes a second, of all files together."""
_AT_ONCE = 8
_TRIES, _SOON = 5, 5.0
"""How often, and with how many seconds between, a file is asked for again while others arrive."""
_POLL_SECONDS = 0.5
_CHUNK = 1 << 16
"""Bytes after which huggingface_hub writes and reports: its own 10 MB would hide a slow transfer for minutes."""


class _Transfers:
    """Files on their way to a folder, in daemon threads: one that is given up keeps nobody waiting."""

    def __init__(self, names: Iterable[str], **arguments: Any) -> None:
        self.waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.under_way: set[str] = set()
        self.error: BaseException | None = None
        self.ended = threading.Event()
        """Set when all have arrived, or one has failed."""
        self.reported = 0
        self._arguments = arguments
        if "tqdm_class" in inspect.signature(hf_hub_download).parameters:
            self._arguments["tqdm_class"] = self._counter()
        for name in names:
            self.waiting.put(name)
        self._left = self.waiting.qsize()
        self._lock = threading.Lock()
        for _ in range(min(_AT_ONCE, self._left)):
            threading.Thread(target=self._run, daemon=True, name="lmsat-transfer").start()

    def _counter(self) -> type[hub_tqdm]:
        """Return what huggingface_hub takes for its progress bar, which counts instead."""
        transfers = self

        class Counter(hub_tqdm):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **{**kwargs, "disable": True})

            def update(self, n: float | None = 1) -> bool | None:
                transfers.reported += int(n or 0)
                return None

        return Counter

    def _fetch(self, name: str) -> None:
        """Fetch one file, and try again where the trouble soon passes; whoever waits longer has other things to do."""
        for number in itertools.count(1):
            try:
                hf_hub_download(filename=name, **self._arguments)
                return
            except Exception as error:
                trouble = passing(error)
                pause = None if trouble is None or trouble.source != SERVER else pause_before(number, trouble)
                if pause is None or pause > _SOON or number >= _TRIES or self.error is not None:
                    raise
            time.sleep(pause)

    def _run(self) -> None:
        with suppress(queue.Empty):
            while self.error is None:
                name = self.waiting.get_nowait()
                self.under_way.add(name)
                try:
                    self._fetch(name)
                except BaseException as error:
                    self.error = self.error or error
                self.under_way.discard(name)
                with self._lock:
                    self._left -= 1
                    if self.error is not None or not self._left:
                        self.ended.set()


def fetch_files(repository: str, commit: str, place: Path, sizes: Mapping[str, int], *, force: bool = False) -> None:
    """Fetch files of a commit into a folder, ``place``, eight at once. ``sizes`` are their bytes by name.

    ``force`` fetches them from the Hub though they are in the user's own cache.

    Raises what huggingface_hub raises, and `TimeoutError` where for a minute less than 10 kB/s arrive.
    """
    constants.DOWNLOAD_CHUNK_SIZE = min(constants.DOWNLOAD_CHUNK_SIZE, _CHUNK)
    host = urlsplit(constants.ENDPOINT).hostname
    transfers = _Transfers(list(sizes), repo_id=repository, revision=commit, local_dir=place, force_download=force)
    there = _bytes_in(place)
    began, arrived_then, warned = time.monotonic(), 0, False
    with tqdm(total=sum(sizes.values()), desc=repository, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        while not transfers.ended.wait(_POLL_SECONDS):
            # One of the two may lag behind: what is on disk, or what was reported.
            arrived = max(_bytes_in(place) - there, transfers.reported)
            bar.update(max(0, arrived - bar.n))
            waited = time.monotonic() - began
            if arrived - arrived_then >= LEAST_RATE * PATIENCE:
                began, arrived_then, warned = time.monotonic(), arrived, False
                continue
            slow = f"{host} has sent {(arrived - arrived_then) / 1000:.0f} kB in {waited:.0f} s"
            waited_for = ", ".join(sorted(transfers.under_way))
            if waited >= PATIENCE:
                transfers.error = TimeoutError(f"{slow}, less than {LEAST_RATE / 1000:g} kB/s: waited for {waited_for}")
                # Locks of the threads that still wait must not hold up another try.
                shutil.rmtree(place / ".cache", ignore_errors=True)
                break
            elif waited >= PATIENCE / 3 and not warned and arrived - arrived_then < LEAST_RATE * waited:
                warned = True
                logger.warning("Waiting for %s of %s: %s", waited_for, repository, slow)
    if transfers.error is not None:
        raise transfers.error


def files_unlike(place: Path, digests: Mapping[str, str | None]) -> list[str]:
    """Return the files of a folder whose digest is another than the one given; None stands for an unknown one."""
    return [name for name, stated in digests.items() if stated is not None and _digest(place / name, stated) != stated]


def _digest(path: Path, like: str) -> str:
    """Return the digest of a file, of the same kind as another: its SHA-256, or git's, which is shorter."""
    with path.open("rb") as file:
        if len(like) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest()
        data = file.read()
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total
