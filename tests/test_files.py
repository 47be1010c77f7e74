"""Files that are whole or absent, and names of folders that differ where the names do."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

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
