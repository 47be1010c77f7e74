"""Commands that convert: run without a shell, with both paths, ended with all that they started, and logged."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time

import pytest

from lmsat_plugin.conversion.commands import Converter
from lmsat_plugin.conversion.recipe import Recipe
from lmsat_plugin.errors import LmsatError

ODD = "a b'$(touch made);\"ü"


def run(tmp_path, command: str, seconds: float = 60):
    """Run a command on odd paths; return its output folder."""
    source, out = tmp_path / f"in {ODD}", tmp_path / f"out {ODD}"
    source.mkdir(exist_ok=True)
    Converter().run(command, source, out, log=tmp_path / "logs" / "log", seconds=seconds)
    return out


def python(code: str) -> str:
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {{input}} {{output}}"


def test_paths_arrive_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import os, sys; os.mkdir(sys.argv[2]); open(sys.argv[2] + '/x', 'w').write(sys.argv[1]); print('done')"
    out = run(tmp_path, python(code))
    assert (out / "x").read_text() == str(tmp_path / f"in {ODD}")
    assert (tmp_path / "logs" / "log").read_text() == "done\n"
    (out / "x").unlink()
    out.rmdir()
    out = run(tmp_path, 'sh -c "mkdir {output} && echo {input} > {output}/x"')
    assert (out / "x").read_text() == f"{tmp_path / f'in {ODD}'}\n"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "import sys; print('on the way'); raise ValueError('no luck')",
            r"exit code 1: ValueError: no luck; .*logs/log$",
        ),
        ("import os; os.kill(os.getpid(), 15)", r"was ended by signal 15; what it printed is in "),
        ("pass", r"wrote nothing to its \{output\}"),
        ("import os, sys; os.mkdir(sys.argv[2])", r"wrote nothing to its \{output\}"),
        (r"import sys; sys.exit('half\x1b[31m\r\nno such\x07 \n\n')", r"exit code 1: no such\\x07; "),
        ("import sys; sys.stderr.write('x' * 100_000); sys.exit(3)", r"exit code 3: x{50,300}\.*; "),
    ],
)
def test_failures_are_one_sentence(code, says, tmp_path):
    with pytest.raises(LmsatError, match=says) as caught:
        run(tmp_path, python(code))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("no-such-command {input} {output}", "there is no command no-such-command"),
        ("convert {input}", r"has no \{output\}"),
        ("convert {output}", r"has no \{input\}"),
        ("convert '{input} {output}", "cannot be split into words"),
    ],
)
def test_commands_that_cannot_be_run(command, says, tmp_path):
    with pytest.raises(LmsatError, match=says):
        run(tmp_path, command)
    if "no-such" not in command:
        with pytest.raises(LmsatError, match=says):
            Recipe(command=command)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that nobody has waited for.
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().split()[2] != "Z"


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


HANGS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
open("pid.part", "w").write(str(child.pid))
import os; os.rename("pid.part", "pid")
time.sleep(1000)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="needs /proc")  # noqa: PTH110
@pytest.mark.parametrize("how", ["timeout", "stop"])
def test_all_that_a_command_started_is_ended(how, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    converter, said = Converter(), []

    def convert() -> None:
        arguments = {"log": tmp_path / "log", "seconds": 2.0 if how == "timeout" else 1000.0}
        with pytest.raises(LmsatError) as caught:
            converter.run(python(HANGS), tmp_path, tmp_path / "out", **arguments)
        said.append(str(caught.value))

    thread = threading.Thread(target=convert)
    thread.start()
    if how == "stop":
        wait_for((tmp_path / "pid").exists)
        converter.stop()
    thread.join(60)
    assert ("was not through after 2 s, and was ended: set convert_timeout higher" in said[0]) == (how == "timeout")
    if (tmp_path / "pid").exists():
        wait_for(lambda: not is_alive(int((tmp_path / "pid").read_text())))
    if how == "stop":
        with pytest.raises(LmsatError, match="interrupted"):
            converter.run(python("pass"), tmp_path, tmp_path / "out", log=tmp_path / "log", seconds=1)


def test_a_launch_is_not_passed_on(tmp_path, monkeypatch):
    """A converter that torch.distributed would take for one of the sweep's processes would wait for the others."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MINE", "1")
    code = "import os, sys, json; os.mkdir(sys.argv[2]); json.dump(dict(os.environ), open(sys.argv[2] + '/x', 'w'))"
    text = (run(tmp_path, python(code)) / "x").read_text()
    assert "MINE" in text
    assert not [name for name in ("RANK", "WORLD_SIZE", "MASTER", "TORCHELASTIC") if name in text]
