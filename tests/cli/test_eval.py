"""``lmsat eval`` runs lm-eval with the plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from lmsat_plugin import measure


def test_eval_works_without_the_start_up_hook(checkpoint, corpus_file, tmp_path):
    """With settings of a probe, as a user gives them."""
    arguments = ["eval", "--model", "lmsat", "--model_args", f"pretrained={checkpoint('llama')}"]
    arguments += ["--tasks", "lmsat_head,lmsat_ngram", "--output_path", str(tmp_path / "out")]
    arguments += ["--metadata", f"corpus={corpus_file}", "order=4", "dims=[64,256]"]
    done = subprocess.run(
        [sys.executable, "-m", "lmsat_plugin.cli", *arguments],
        env={**os.environ, "LMSAT_AUTOLOAD": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [file] = (tmp_path / "out").rglob("results_*.json")
    results = json.loads(file.read_text())["results"]
    assert "singular_entropy,none" in results["lmsat_head"]
    row = results["lmsat_ngram"]
    assert {key for key in row if key.endswith(",none")} >= {"w_error_64,none", "w_error_256,none"}
    assert "w_error_128,none" not in row
    measured = measure(str(checkpoint("llama")), ["ngram"], corpus=str(corpus_file), order=4, dims=[64, 256])
    assert row["w_error_64,none"] == measured.metrics["lmsat_ngram/w_error_64"]
