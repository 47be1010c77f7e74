"""One thread that does one thing after another, such as downloads ahead of need."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any


class Background:
    """A thread that starts with the first task and, unlike an executor's, does not keep the process from ending."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]]
        self._queue = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Queue a call; return what it will return or raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="lmsat-fetch")
            self._thread.start()
        future: Future[Any] = Future()
        self._queue.put((future, function, arguments))
        return future

    def _run(self) -> None:
        while True:
            future, function, arguments = self._queue.get()
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                with suppress(Exception):
                    future.set_exception(error)
