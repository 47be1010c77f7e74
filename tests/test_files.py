"""Files that are whole or absent, and names of folders that differ where the names do."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import folder_name, replacing, safe_name, write_atomically


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
