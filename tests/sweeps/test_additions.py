"""Values that a probe has gained without a new version: they are measured where results lack them, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from sweep_outputs import files_of

from lmsat_plugin import Measurement, load_results
from lmsat_plugin.cli.main import main
from lmsat_plugin.plugins import plugins
from lmsat_plugin.probes.loss import LossProbe, LossSettings
from lmsat_plugin.results import Results
from lmsat_plugin.settings import Settings

PREDICTIONS = {"accuracy", "entropy", "calibration_error", "loss_frequent", "loss_medium", "loss_rare"}
OLD = {"loss", "perplexity", "bits_per_byte", "unigram_loss", "unigram_normalised_perplexity", "tokens", "bytes"}


class OldLossProbe(LossProbe):
    """The probe as it was: without these values, and without a setting."""

    # lmsat's own: the code of others' files identifies their results.
    __module__ = LossProbe.__module__
    additions = {}
    settings_type = Settings

    def start(self, context):
        self.settings = LossSettings()
        super().start(context)

    def finish(self):
        found = super().finish()
        self.settings = Settings()
        metrics = {name: value for name, value in found.metrics.items() if name.removesuffix("_stderr") in OLD}
        arrays = {name: array for name, array in found.arrays.items() if not name.startswith("by_frequency")}
        return Measurement(metrics, arrays)


@pytest.fixture
def old_tree(configure, tmp_path, monkeypatch):
    """Return the configuration and the files of a sweep that was made before."""
    config = str(configure(tasks=["lmsat_loss", "lmsat_anisotropy"]))
    with monkeypatch.context() as patch:
        patch.setitem(plugins().probes, "loss", OldLossProbe)
        assert main(["sweep", config]) == 0
    return config, files_of(tmp_path / "out")


def metrics_of(document: dict, task: str = "lmsat_loss") -> set[str]:
    names = {key.partition(",")[0] for key in document["results"][task]}
    return {name for name in names if not name.endswith("_stderr")} - {"alias", "sample_len", "name", " "}


def test_only_what_is_missing_is_measured(old_tree, tmp_path, capsys):
    config, before = old_tree
    assert len(before) == 3
    assert all(metrics_of(document) == OLD for document in before.values())
    assert main(["sweep", config, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert main(["sweep", config]) == 0
    after = files_of(tmp_path / "out")
    # What was measured stands, byte for byte; what is new are the missing values of one task alone.
    assert {path: after[path] for path in before} == before
    added = [after[path] for path in after.keys() - before.keys()]
    assert len(added) == 3, shown
    for document in added:
        assert set(document["results"]) == {"lmsat_loss"}
        assert metrics_of(document) == PREDICTIONS
        assert "supersedes" not in document["config"]["lmsat"]
        assert document["versions"] == {"lmsat_loss": 1}
        assert sorted(document["config"]["lmsat"]["arrays_content"]) == [
            "loss/by_frequency",
            "loss/by_frequency_tokens",
        ]
    # And then nothing is missing.
    assert main(["sweep", config]) == 0
    assert files_of(tmp_path / "out") == after
    assert main(["verify", str(tmp_path / "out")]) == 0
    capsys.readouterr()

    table = load_results(tmp_path / "out")
    of_loss = table[table.task == "lmsat_loss"]
    assert set(of_loss.metric) == OLD | PREDICTIONS
    assert of_loss.variant.isna().all(), "both are results of one setting"
    assert not of_loss.duplicated(["revision", "metric"]).any()
    results = Results.read(tmp_path / "out")
    assert results.note is None, "no value was measured twice"
    [path] = set(of_loss[(of_loss.metric == "loss_rare") & (of_loss.step == 10)].path)
    assert "loss/by_frequency" in results.arrays(path, "lmsat_loss", "loss/")


def test_new_trees_have_all_in_one_file(configure, tmp_path):
    config = str(configure(tasks=["lmsat_loss"]))
    assert main(["sweep", config]) == 0
    files = files_of(tmp_path / "out")
    assert len(files) == 3
    assert all(metrics_of(document) == OLD | PREDICTIONS for document in files.values())
    assert main(["sweep", config, "--force", "--only", "run@step10"]) == 0
    again = files_of(tmp_path / "out")
    [new] = [again[path] for path in again.keys() - files.keys()]
    [replaced] = new["config"]["lmsat"]["supersedes"].values()
    assert replaced == ["lmsat_loss"]


def test_a_switch_measures_its_array_alone(configure, tmp_path):
    assert main(["sweep", str(configure(tasks=["lmsat_loss"]))]) == 0
    before = files_of(tmp_path / "out")
    config = str(configure(tasks=["lmsat_loss"], metadata={"token_losses": True}))
    for _ in range(2):
        assert main(["sweep", config]) == 0
        after = files_of(tmp_path / "out")
        assert {path: after[path] for path in before} == before
        added = [after[path] for path in after.keys() - before.keys()]
        names = ["loss/by_token", "loss/by_token_ids"]
        assert [sorted(each["config"]["lmsat"]["arrays_content"]) for each in added] == [names] * 3
        assert all(metrics_of(each) == set() for each in added)
    # Without the switch nothing is asked for again, and the settings make no variant.
    assert main(["sweep", str(configure(tasks=["lmsat_loss"]))]) == 0
    assert files_of(tmp_path / "out") == after
    assert load_results(tmp_path / "out").variant.isna().all()
    assert main(["verify", str(tmp_path / "out")]) == 0


def test_an_addition_that_is_lost_is_measured_alone(old_tree, tmp_path):
    config, before = old_tree
    assert main(["sweep", config]) == 0
    after = files_of(tmp_path / "out")
    [path] = [path for path in after.keys() - before.keys() if "step10/" in path]
    (tmp_path / "out" / path).unlink()
    assert main(["sweep", config]) == 0
    again = files_of(tmp_path / "out")
    [new] = again.keys() - after.keys()
    assert metrics_of(again[new]) == PREDICTIONS
    assert Path(new).parts[:2] == ("run", "step10")


def test_changed_weights_replace_both(old_tree, tmp_path, save, run_folder):
    config, _ = old_tree
    assert main(["sweep", config]) == 0
    after = files_of(tmp_path / "out")
    shutil.rmtree(run_folder / "step10")
    save(run_folder / "step10", 77)
    assert main(["sweep", config]) == 0
    [new] = files_of(tmp_path / "out").keys() - after.keys()
    document = json.loads((tmp_path / "out" / new).read_text())
    assert metrics_of(document) == OLD | PREDICTIONS
    replaced = document["config"]["lmsat"]["supersedes"]
    assert sorted(map(sorted, replaced.values())) == [["lmsat_anisotropy", "lmsat_loss"], ["lmsat_loss"]]
