"""The command as a whole: arguments it refuses, and what it imports before it knows them."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
