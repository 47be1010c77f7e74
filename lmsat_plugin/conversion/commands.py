"""Run a command that converts a checkpoint: its output kept in a log, ended when it takes too long or lmsat ends."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.outside_text import printable, shortened

INPUT, OUTPUT = "{input}", "{output}"
_SHELLS = {"sh", "bash", "dash", "zsh", "ksh"}
# Of a launch that measures: a converter that is one of torch.distributed's processes would wait for the others.
_OF_A_LAUNCH = re.compile(r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_.*")
# Ends the command, and all that it started, when the other end of its input closes: also where lmsat is killed.
_SUPERVISOR = """
import os, signal, subprocess, sys, threading

def wait():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)

threading.Thread(target=wait, daemon=True).start()
code = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL)
os._exit(code if code >= 0 else 128 - code)
"""
_TAIL = 1 << 16


def words_of(command: str | None) -> list[str]:
    """Return the words of a command, none of None. Raises `LmsatError` for one without ``{input}`` or ``{output}``."""
    if command is None:
        return []
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise LmsatError(f"convert: {command} cannot be split into words ({error}): correct its quotes") from None
    for placeholder in (INPUT, OUTPUT):
        if placeholder not in command:
            raise LmsatError(f"convert: {command} has no {placeholder}: add it where the command takes that path")
    return words


def _filled(words: list[str], source: Path, out: Path) -> list[str]:
    """Return the words with both paths. What a shell is to run gets them quoted."""
    filled = []
    for number, word in enumerate(words):
        is_script = number >= 2 and words[number - 1] == "-c" and Path(words[number - 2]).name in _SHELLS
        for placeholder, path in ((INPUT, source), (OUTPUT, out)):
            word = word.replace(placeholder, shlex.quote(str(path)) if is_script else str(path))
        filled.append(word)
    return filled


class Converter:
    """Runs commands, one at a time. Another thread may `stop` it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self, command: str, source: Path, out: Path, *, log: Path, seconds: float) -> None:
        """Run a command for a checkpoint; what it prints goes to a log.

        Raises `LmsatError` where it is not there, fails, takes longer than ``seconds``, or writes nothing to ``out``.
        """
        words = _filled(words_of(command), source.absolute(), out.absolute())
        if shutil.which(words[0]) is None:
            raise LmsatError(f"convert: there is no command {words[0]}: install it, or correct its name")
        environment = {key: value for key, value in os.environ.items() if not _OF_A_LAUNCH.fullmatch(key)}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file, self._lock:
            if self._stopped:
                raise LmsatError(f"convert: {command} was interrupted")
            self._process = process = subprocess.Popen(
                [sys.executable, "-ISc", _SUPERVISOR, *words],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # What is printed before an error comes before it in the log.
                env={**environment, "PYTHONUNBUFFERED": "1"},
            )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LmsatError(
                f"convert: {command} was not through after {seconds:g} s, and was ended: "
                f"set convert_timeout higher, or see what it printed in {log}"
            ) from None
        finally:
            _end(process)
            with self._lock:
                # Its number may be another's soon.
                self._process = None
        if code:
            code = code if code > 0 else 128 - code
            how = f"was ended by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
            said = _last_line(log)
            raise LmsatError(f"convert: {command} {how}{f': {said}' if said else ''}; what it printed is in {log}")
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            raise LmsatError(
                f"convert: {command} wrote nothing to its {OUTPUT}: correct it; what it printed is in {log}"
            )

    def stop(self) -> None:
        """End what runs, and run nothing more."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                _end(self._process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End all processes of a command that still run."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    process.wait()


def _last_line(log: Path) -> str:
    """Return the last line of what a command printed."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        text = file.read().decode("utf-8", "replace")
        lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
        return shortened(printable(lines[-1])).rstrip(".") if lines else ""
    return ""
