"""A run that diverges: recorded as that, final until its files change, and said by every reader."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file, save_file
from sweep_outputs import files_of

from lmsat_plugin import Results
from lmsat_plugin.analysis import find_saturation
from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.cli.main import main
from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
from lmsat_plugin.ranking.leaderboard import leaderboard_of

LAYER = "gpt_neox.layers.1.mlp.dense_4h_to_h.weight"


def break_weights(folder) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[LAYER][3] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture
def swept(configure, quiz, run_folder, tmp_path):
    """Return a sweep's configuration; its last checkpoint has diverged, and is measured."""
    break_weights(run_folder / "step100")
    config = configure(tasks=["lmsat_loss", "lmsat_head", "quiz"], include_path=str(quiz()), max_tokens=300)
    assert main(["sweep", str(config)]) == 1
    return config


def test_a_diverged_checkpoint_is_final_until_its_files_change(swept, save, run_folder, tmp_path, capsys, monkeypatch):
    record = tmp_path / "out/run/step100/failures.json"
    failures = {entry["identity"]["task"]: entry for entry in json.loads(record.read_text())["failures"]}
    assert {task: entry["kind"] for task, entry in failures.items()} == {"lmsat_loss": "diverged", "quiz": "diverged"}
    for entry in failures.values():
        assert entry["error"].startswith("diverged: the lo")
        assert f"the weight {LAYER} (layer 2) is not finite; leave the checkpoint out" in entry["error"]
    # The head is finite, and measured; no answer of the quiz is made of NaN.
    measured = [set(doc["results"]) for path, doc in files_of(tmp_path / "out").items() if "/step100/" in path]
    assert measured == [{"lmsat_head"}]

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointEvaluator, "load", lambda *args, **kwargs: pytest.fail("it was loaded"))
        for options in ([], ["--retry-failed"]):
            assert main(["sweep", str(swept), *options]) == 1
            assert "Failed: run step100: diverged: the loss of document" in capsys.readouterr().err
    (run_folder / "step100").rename(tmp_path / "broken")
    save(run_folder / "step100", 2)
    assert main(["sweep", str(swept)]) == 0
    assert not record.exists()


def test_readers_say_at_which_step_a_run_diverged(swept, tmp_path):
    results = Results.read(tmp_path / "out")
    rows = results.table[results.table.revision == "step100"].set_index(["task", "metric"])
    assert rows.value.isna().to_dict() == {key: key[0] != "lmsat_head" for key in rows.index}
    every = Results.read(tmp_path / "out", all_results=True).table
    assert not every.duplicated(["revision", "task", "metric", "filter"]).any(), "each value diverged once"
    assert results.table.variant.isna().all(), "its settings are those of the others"
    (one,) = find_saturation(results)
    assert (one.verdict, one.diverged_step, one.final_step) == ("diverged", 100, 10)
    analyses = Analyses.of(results)
    with pytest.raises(Exception, match=r"no last checkpoint has a finite loss .*not finite from step 100 on"):
        leaderboard_of(analyses)
    assert analyses.final_losses().empty


def test_an_edited_record_of_failures_counts_for_nothing(swept, tmp_path, caplog):
    record = tmp_path / "out/run/step100/failures.json"
    record.write_text(record.read_text().replace("diverged: the loss", "diverged: the gain"))
    assert not Results.read(tmp_path / "out").table.value.isna().any()
    assert f"Left out: {record} was changed by hand" in caplog.text
    assert main(["sweep", str(swept)]) == 1
    assert record.with_name("failures.json.quarantined").exists()
    assert "the loss of document" in record.read_text()
