"""Files that are whole or absent, and names of folders that differ where the names do."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lmsat_plugin import files
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import (
    check_writable,
    folder_name,
    kind_of,
    read_file,
    replacing,
    safe_name,
    user_path,
    write_atomically,
)


def test_folder_names_differ_where_names_do():
    names = ["a/b", "a//b", "a b", "a_b", "..", ".", "A" * 300, "A" * 301, "ä", "step1", "x/../y"]
    # All short names of letters, underscores and slashes.
    names += {"".join(letters) for n in (1, 2, 3, 4, 5) for letters in itertools.product("a_/", repeat=n)} - {"a_b"}
    names = list(dict.fromkeys(names))
    assert len({folder_name(name) for name in names}) == len(names)
    assert all(name == Path(name).name and len(name) < 120 for name in map(folder_name, names))
    assert folder_name("EleutherAI/pythia-14m") == "EleutherAI__pythia-14m"
    assert folder_name("step1000") == "step1000"
    assert folder_name("a__b") != folder_name("a/b") == "a__b"


def test_names_of_files_are_safe():
    assert safe_name("../../<i>x") == "__..__i__x"
    assert safe_name("..") == "_"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file"
    write_atomically(path, b"first")

    def fail():
        with replacing(path) as part:
            part.write_bytes(b"half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"first"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    (tmp_path / "blocked").touch()
    with pytest.raises(LmsatError, match=r"cannot write .*: free space or choose another folder"):
        write_atomically(tmp_path / "blocked" / "file", b"x")


DYING = """
import os, sys, time
from pathlib import Path
from lmsat_plugin.files import replacing
with replacing(Path(sys.argv[1])) as part:
    part.write_bytes(b"half")
    print(part, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def write_half():
    """Return a function that starts a process which never finishes a file; it returns the process and its file."""
    started = []

    def start(path: Path) -> tuple[subprocess.Popen, Path]:
        process = subprocess.Popen([sys.executable, "-c", DYING, str(path)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_a_dead_process_has_left_is_removed_by_the_next(write_half, tmp_path):
    """A living process keeps its own, and what nobody of us wrote stays."""
    path = tmp_path / "folder" / "file"
    process, half = write_half(path)
    other = half.with_name(".a-download.part")
    other.touch()
    check_writable(path.parent)
    write_atomically(path.with_name("another"), b"x")
    assert half.read_bytes() == b"half"
    process.kill()
    process.wait()
    check_writable(path.parent)
    assert sorted(p.name for p in path.parent.iterdir()) == [".a-download.part", "another"]


def test_the_first_file_that_a_process_writes_tidies_its_folder(write_half, tmp_path):
    process, half = write_half(tmp_path / "folder" / "file")
    process.kill()
    process.wait()
    write_atomically(tmp_path / "folder" / "another", b"x")
    assert [p.name for p in half.parent.iterdir()] == ["another"]


def test_a_file_that_was_taken_for_a_dead_ones_is_made_anew(tmp_path, monkeypatch):
    """Between its making and its lock, another process may remove it."""
    lock, removed = files._lock, []

    def late(handle, *, wait=True):
        if wait and not removed:
            removed.extend(tmp_path.glob(".*.part"))
            removed[0].unlink()
        return lock(handle, wait=wait)

    monkeypatch.setattr(files, "_lock", late)
    write_atomically(tmp_path / "file", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert removed


def test_the_folder_is_synced_after_the_file_has_its_name(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync

    def watch(handle):
        synced.append((stat.S_ISDIR(os.fstat(handle).st_mode), (tmp_path / "file").exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watch)
    write_atomically(tmp_path / "file", b"x")
    assert synced == [(False, False), (True, True)]


def test_only_files_are_read(tmp_path):
    """Opening a FIFO waits for ever for somebody to write."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"x")
    kinds = {name: kind_of(tmp_path / name) for name in ("file", "fifo", ".", "none", "n" * 300, "a\0b")}
    assert kinds == {"file": "file", "fifo": "device", ".": "folder", "none": None, "n" * 300: None, "a\0b": None}
    assert kind_of(Path("/dev/zero")) == "device"
    assert read_file(tmp_path / "file") == b"x"
    for name in ("fifo", ".", "none", "n" * 300, "a\0b", "/dev/zero"):
        with pytest.raises(OSError):  # noqa: PT011 - each of its kinds
            read_file(tmp_path / name)


def test_names_that_no_file_can_have_are_a_sentence(tmp_path):
    with pytest.raises(LmsatError, match="~nobody-here/x is in the home folder of nobody here"):
        user_path("~nobody-here/x")
    for name in ("n" * 300, "a\0b"):
        with pytest.raises(LmsatError, match=r"^cannot write to .*choose another folder"):
            check_writable(tmp_path / name)
