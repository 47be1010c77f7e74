"""The command as a whole: arguments it refuses, and what it imports before it knows them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from result_files import new, write

from lmsat_plugin.cli.main import main


def test_unknown_arguments_are_refused(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["probes", "--jsno"])
    assert exit_.value.code == 2
    assert "--jsno" in capsys.readouterr().err


def test_imports_stay_light():
    code = (
        "import sys, lmsat_plugin.cli.main, lmsat_plugin.analysis.emergence; "
        "print([m for m in ('torch', 'lm_eval', 'pandas', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [["results"], ["saturation"], ["fit", "chinchilla"], ["leaderboard"], ["shape"]])
def test_what_is_no_file_is_a_sentence_at_once(command, tmp_path, capsys):
    """FIFOs and devices that would be waited for, folders, and names that no file can have."""
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    names = [
        *(str(tmp_path / f"{name}.csv") for name in ("fifo", "folder", "zero", "loop", "n" * 300)),
        "~nobody/x.csv",
    ]
    for name in [*names, "a\0b.csv", f"{tmp_path}/fifo.csv/x", "/dev/stdin"]:
        assert main([*command, name]) == 2, name
        error = capsys.readouterr().err
        assert error.startswith("lmsat: error: "), name
        assert error.count("\n") == 1, name


def test_closed_streams_are_no_error(tmp_path, monkeypatch):
    """As of a process that is started with ``>&- 2>&-``."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main(["verify", str(tmp_path)]) == 0
    assert main(["results", str(tmp_path / "nowhere")]) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("command", [["probes"], ["results", "--format", "csv"], ["verify"]])
def test_a_full_disk_behind_standard_output_is_a_sentence(tmp_path, monkeypatch, capfd, command):
    write(tmp_path / "results_1.json", new())
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", full)
        assert main([command[0], *([] if command == ["probes"] else [str(tmp_path)]), *command[1:]]) == 2
    error = capfd.readouterr().err
    assert "lmsat: error: the output cannot be written (No space left on device): free space" in error
