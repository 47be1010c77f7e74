"""Which troubles pass by themselves, such as a full disk or a server that is away, and how long to wait for that."""

from __future__ import annotations

import errno
import itertools
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from lmsat_plugin.errors import LmsatError, PassingError, first_sentence
from lmsat_plugin.outside_text import show

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)
"""Seconds to wait before each further try, in all longer than a server is usually away."""
SERVER = "the server"
"""The source of the troubles of servers."""
_LONGEST_PAUSE = 3600.0
_ERRNOS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT),
    *(errno.ENODEV, errno.ENXIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EBUSY),
    *(
        getattr(errno, name, errno.EIO)
        for name in ("EREMOTEIO", "ESHUTDOWN", "ENETDOWN", "ENETUNREACH", "EHOSTUNREACH")
    ),
}
_HTTP_LIBRARIES = {"httpx", "httpx2", "httpcore", "requests", "urllib3", "aiohttp"}
# A generator of its own: nothing that is measured may depend on how often something was tried.
_jitter = random.Random()
_STATUSES = {408, 425, 429}

T = TypeVar("T")


def passing(error: BaseException) -> PassingError | None:
    """Return the passing trouble that an error is, or that it was raised for; None if it would come again."""
    message = (
        str(error) if isinstance(error, LmsatError) else f"{first_sentence(error)}: start again when it has passed"
    )
    if any(type(each).__name__ == "OfflineModeIsEnabled" for each in causes(error)):
        return None
    for each in causes(error):
        if isinstance(each, PassingError):
            return each
        response = getattr(each, "response", None)
        status = getattr(response, "status_code", None) or getattr(each, "status", None)
        if isinstance(status, int):
            if status in _STATUSES or status >= 500:
                return PassingError(message, source=SERVER, retry_after=_retry_after(response or each))
        elif (number := _errno(each)) in _ERRNOS or _has_passed(each):
            return PassingError(message, source=os.strerror(number) if number else str(each))
        elif isinstance(each, ConnectionError | TimeoutError) or _library(each) in _HTTP_LIBRARIES:
            return PassingError(message, source=SERVER)
    return None


def pause_before(number: int, error: PassingError) -> float | None:
    """Return the seconds to wait before another try after so many of them; None if there is to be none."""
    if number >= error.tries:
        return None
    # Jitter: several processes that wait for one server do not come back at the same instant.
    pause = PAUSES[min(number, len(PAUSES)) - 1] * _jitter.uniform(0.9, 1.2)
    return max(pause, min(error.retry_after, _LONGEST_PAUSE))


def patiently(call: Callable[[], T]) -> T:
    """Return what a call returns, which is made again after a pause where it meets passing trouble.

    Raises what it raised last.
    """
    for number in itertools.count(1):
        try:
            return call()
        except Exception as error:
            trouble = passing(error)
            pause = None if trouble is None else pause_before(number, trouble)
            if pause is None:
                raise
            show(f"Again in {pause:.0f} s: {trouble}", sys.stderr)
        time.sleep(pause)
    raise AssertionError


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _errno(error: BaseException) -> int:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    # What is written in Rust or C++ states it in words alone, torch as "Input/output error (5)".
    text = str(error)
    if stated := re.search(r"\b(?:os error |errno |error #)(\d+)\b", text, re.IGNORECASE):
        return int(stated[1])
    return next((number for number in sorted(_ERRNOS) if f"{os.strerror(number)} ({number})" in text), 0)


def _has_passed(error: BaseException) -> bool:
    """Return whether a file was missing or refused that can be read now, or was refused after it had been opened."""
    if isinstance(error, PermissionError) and error.errno and error.filename is None:
        # As on a network's file system while a ticket has expired.
        return True
    if not isinstance(error, FileNotFoundError | PermissionError):
        return False
    # safetensors says of every file that it cannot open that there is none, and has no number.
    stated = re.fullmatch(r"No such file or directory: (.+)", str(error))
    path = stated[1] if stated else error.filename
    return isinstance(path, str | os.PathLike) and Path(path).is_file() and os.access(path, os.R_OK)


def _library(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _retry_after(response: Any) -> float:
    """Return the seconds after which a server takes requests again, as its answer says; 0 if it does not."""
    headers = {str(name).lower(): str(value) for name, value in (getattr(response, "headers", None) or {}).items()}
    stated = headers.get("retry-after", "")
    if re.fullmatch(r"\d+(\.\d+)?", stated):
        return float(stated)
    try:
        return max(0.0, (parsedate_to_datetime(stated) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        left = re.search(r"\bt=(\d+)", headers.get("ratelimit", ""))
        return float(left[1]) if left else 0.0
