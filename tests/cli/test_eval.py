"""``lmsat eval`` runs lm-eval with the plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def test_eval_works_without_the_start_up_hook(checkpoint, corpus_file, tmp_path):
    arguments = ["eval", "--model", "lmsat", "--model_args", f"pretrained={checkpoint('llama')}"]
    arguments += ["--tasks", "lmsat_head", "--output_path", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "lmsat_plugin.cli", *arguments],
        env={**os.environ, "LMSAT_AUTOLOAD": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [file] = (tmp_path / "out").rglob("results_*.json")
    assert "singular_entropy,none" in json.loads(file.read_text())["results"]["lmsat_head"]
