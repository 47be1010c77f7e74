"""The command as a whole: arguments it refuses, and what it imports before it knows them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from result_files import new, write

from lmsat_plugin.cli.guide import COMMANDS
from lmsat_plugin.cli.main import main
from lmsat_plugin.cli.parser import build_parser


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["saturation", "x", "--tsk", "y"], "--tsk is no argument of lmsat saturation: did you mean --task?"),
        (["report", "x", "--min-step=3"], "--min-step=3 is no argument of lmsat report: it is one of lmsat saturation"),
        (["doctor", "--no-such"], "--no-such is no argument of lmsat doctor"),
        (["sweep", "x", "--max-tokens", "9"], "--max-tokens is no argument of lmsat sweep: write max_tokens=VALUE"),
    ],
)
def test_unknown_arguments_are_refused_with_the_usage_of_their_command(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"usage: lmsat {arguments[0]}")
    assert error.splitlines()[-1] == f"lmsat {arguments[0]}: error: {said}"


def test_a_misspelt_command_or_word_is_answered_with_the_right_one(capsys):
    with pytest.raises(SystemExit):
        main(["saturatoin", "x"])
    assert capsys.readouterr().err.endswith("'saturatoin' is unknown: did you mean saturation?\n")
    assert main(["explain", "anistropy"]) == 2
    assert capsys.readouterr().err == "lmsat: error: 'anistropy' is not explained: did you mean anisotropy?\n"


def test_lmsat_alone_names_every_command(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command.name} " in printed
        assert len(command.examples) >= 2


def test_every_example_is_taken_by_its_command():
    for command in COMMANDS:
        for example in command.examples:
            words = shlex.split(example)
            start = words.index("lmsat")
            args, rest = build_parser().parse_known_args(words[start + 1 :])
            assert args.command == command.name
            assert command.passes_on or not rest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--print-completion", shell])
    assert not stopped.value.code
    script = capsys.readouterr().out
    assert "saturation" in script
    assert "retry-failed" in script


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
