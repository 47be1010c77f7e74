"""Which errors may pass, however they are wrapped, and how long is waited for them."""

from __future__ import annotations

import errno
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest

from lmsat_plugin import passing as passing_module
from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.passing import PAUSES, passing, patiently, pause_before


class AnswerError(Exception):
    """As those of HTTP libraries."""

    def __init__(self, status: int, **headers: str) -> None:
        self.response = SimpleNamespace(status_code=status, headers=headers)


def wrapped(error: Exception) -> LmsatError:
    try:
        try:
            raise error
        except Exception as caught:
            raise LmsatError("model.safetensors cannot be read: copy it again") from caught
    except LmsatError as outer:
        return outer


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, "no") for number in (errno.ENOSPC, errno.EIO, errno.ESTALE, errno.ENOTCONN)),
        *(AnswerError(status) for status in (408, 429, 500, 502, 503, 504)),
        *(ConnectionResetError(), TimeoutError("read timed out"), RuntimeError("I/O error (os error 5)")),
        RuntimeError("unable to open file <model.safetensors> in read-only mode: Input/output error (5)"),
        RuntimeError("unable to mmap 4096 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
        RuntimeError("open file failed because of errno 5 on fopen: Input/output error, file path: model.bin"),
        OSError('Not found: "tokenizer.model": Input/output error Error #5'),
    ],
    ids=repr,
)
def test_trouble_that_passes(error):
    trouble = passing(wrapped(error))
    assert isinstance(trouble, PassingError)
    assert str(trouble) == "model.safetensors cannot be read: copy it again"
    assert passing(trouble) is trouble


@pytest.mark.parametrize(
    "error",
    [
        *(AnswerError(status) for status in (400, 401, 403, 404)),
        *(OSError(number, "no", "there/is/none") for number in (errno.ENOENT, errno.EACCES, errno.EISDIR)),
        FileNotFoundError("No such file or directory: there/is/none"),
        *(ValueError("5 is not a rank"), RuntimeError("CUDA error: an illegal memory access was encountered")),
        RuntimeError("unable to open file <model.safetensors> in read-only mode: No such file or directory (2)"),
    ],
    ids=repr,
)
def test_trouble_that_comes_again(error):
    assert passing(wrapped(error)) is None


def test_a_file_that_can_be_read_again_was_in_trouble_that_passes(tmp_path):
    path = tmp_path / "model.safetensors"
    for error in (
        FileNotFoundError(f"No such file or directory: {path}"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", str(path)),
        PermissionError(errno.EACCES, "Permission denied", str(path)),
    ):
        path.unlink(missing_ok=True)
        assert passing(wrapped(error)) is None
        path.write_text("")
        assert passing(wrapped(error))
    assert passing(wrapped(PermissionError(errno.EACCES, "Permission denied")))


def test_being_offline_by_choice_does_not_pass():
    """Though `datasets` says that the Hub cannot be reached."""
    offline = type("OfflineModeIsEnabled", (ConnectionError,), {})()
    assert passing(wrapped(offline)) is None
    unreachable = ConnectionError("Couldn't reach the Hub")
    unreachable.__cause__ = offline
    assert passing(wrapped(unreachable)) is None
    assert passing(wrapped(ConnectionError("Couldn't reach the Hub")))


def test_a_server_says_how_long():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90))
    for headers, seconds in (
        ({"Retry-After": "7"}, 7),
        ({"retry-after": later}, 90),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"Retry-After": "soon"}, 0),
    ):
        trouble = passing(AnswerError(429, **headers))
        assert trouble is not None
        assert trouble.retry_after == pytest.approx(seconds, abs=2)
    pause = pause_before(1, PassingError("", source="", retry_after=7))
    assert pause == 7
    assert pause_before(1, PassingError("", source="", retry_after=1e9)) == 3600


def test_pauses_grow_and_end(monkeypatch):
    assert sum(PAUSES) * 0.9 > 60, "a server may be away for a minute"
    slept: list[float] = []
    monkeypatch.setattr(passing_module.time, "sleep", slept.append)

    def away() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        patiently(away)
    assert len(slept) == len(PAUSES)
    assert all(0.9 * pause <= one <= 1.2 * pause for pause, one in zip(PAUSES, slept, strict=True))
    assert slept != list(PAUSES), "several processes would come back at once"
    answers = iter([OSError(errno.EIO, "no"), None])
    assert patiently(lambda: (_ for _ in ()).throw(error) if (error := next(answers)) else "there") == "there"


def test_what_is_waited_for_reaches_the_terminal_without_control_characters(monkeypatch, capsys):
    monkeypatch.setattr(passing_module.time, "sleep", lambda _: None)
    answers = iter([OSError(errno.EIO, "no \x1b[2J"), None])
    assert patiently(lambda: (_ for _ in ()).throw(error) if (error := next(answers)) else "there") == "there"
    assert "\x1b" not in capsys.readouterr().err
