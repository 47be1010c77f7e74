"""Checkpoints of a sweep beside others of it: which they are, what is kept of them, and what becomes of their loss."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
import time
from pathlib import Path

import pytest
from sweep_outputs import files_of
from warm_lmsat import shared

import lmsat_plugin
from lmsat_plugin.cli.main import main
from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
from lmsat_plugin.measurement.beside import BesideReference
from lmsat_plugin.measurement.references import KeptTensors
from lmsat_plugin.page.commands import _of_file
from lmsat_plugin.results import Results
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.plan import Plan
from lmsat_plugin.sweeps.store import Store

SIMILARITY = "lmsat-similarity"
_DRIFT = """
from lmsat_plugin import Measurement, Need, NoReferenceError, Probe, Settings


class DriftSettings(Settings):
    reference: str = "previous"


class DriftProbe(Probe[DriftSettings]):
    name, needs, settings_type = "drift", Need.WEIGHTS | Need.REFERENCE, DriftSettings

    def start(self, context):
        self.context = context

    def finish(self):
        def head(context):
            return {"weight": FACTOR * context.head_weight_VD}

        beside = self.context.beside(self.settings.reference)
        own = beside.own("drift", head, of_text=False)["weight"]
        try:
            other = beside.other("drift", head, of_text=False)["weight"]
        except NoReferenceError as error:
            return Measurement.with_gaps({}, {"distance": str(error)}, {})
        return Measurement({"distance": float((own.double() - other.double()).norm())})
"""
SHOWN = {
    *("cka_last", "cka_mean", "principal_angle_last", "agreement", "jensen_shannon", "relative_change"),
    *("change_cosine", "spectral_norm_max", "loss"),
}


def notes_of(output, probe="similarity") -> dict[str, dict]:
    """Return what the latest result of each checkpoint notes of a probe."""
    found = {}
    for path, document in sorted(files_of(output).items()):
        probes = document["config"]["lmsat"]["probes"]
        if probe in probes:
            found[path.split("/")[1]] = probes[probe]
    return found


def metrics_of(output, task=SIMILARITY) -> dict[str, dict[str, float]]:
    found = {}
    for path, document in sorted(files_of(output).items()):
        if task in document["results"]:
            values = document["results"][task]
            values = {key.partition(",")[0]: value for key, value in values.items() if value != "N/A"}
            found[path.split("/")[1]] = {key: value for key, value in values.items() if key in SHOWN}
    return found


@pytest.fixture
def loads(monkeypatch):
    """Return the names of the references whose models are loaded."""
    loaded = []
    load = BesideReference._load
    monkeypatch.setattr(
        BesideReference, "_load", lambda self, reference: loaded.append(reference.name) or load(self, reference)
    )
    return loaded


def test_each_checkpoint_is_compared_with_the_one_before(configure, run_folder, corpus_file, tmp_path, loads):
    config = configure(tasks=[SIMILARITY], metadata={"similarity_tokens": 200})
    assert main(["sweep", str(config)]) == 0
    found, notes = metrics_of(tmp_path / "out"), notes_of(tmp_path / "out")
    assert found["step0"]["cka_last"] is None
    assert "first checkpoint" in notes["step0"]["reasons"]["agreement"]
    assert [notes[step]["reference"]["name"] for step in ("step10", "step100")] == ["step0", "step10"]
    assert loads == [], "what the one before has kept is enough"
    # The same by the function, which loads both.
    alone = lmsat_plugin.measure(
        run_folder / "step100",
        "similarity",
        corpus=str(corpus_file),
        max_tokens=600,
        reference=str(run_folder / "step10"),
        similarity_tokens=200,
        device="cpu",
    )
    assert loads == [str(run_folder / "step10")]
    assert alone.measurements["similarity"].metrics == found["step100"]
    # Nothing is left to do, and what was kept of the latest two stays.
    assert main(["sweep", str(config)]) == 0
    assert len(files_of(tmp_path / "out")) == 3
    assert len(list((tmp_path / "out").rglob("compared/*"))) == 2
    assert main(["verify", str(tmp_path / "out")]) == 0


def test_a_reference_that_was_not_measured_in_this_run_is_loaded(configure, tmp_path, loads):
    config = str(configure(tasks=[SIMILARITY], metadata={"similarity_tokens": 200}))
    assert main(["sweep", config]) == 0
    whole = metrics_of(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    assert main(["sweep", config, "--only", "run@step100"]) == 0
    assert loads == ["step10"]
    assert metrics_of(tmp_path / "out") == {"step100": whole["step100"]}


@pytest.mark.parametrize(
    ("setting", "references"),
    [
        ("next", {"step0": "step10", "step10": "step100"}),
        ("first", {"step0": "step0", "step10": "step0", "step100": "step0"}),
        ("last", {"step0": "step100", "step10": "step100", "step100": "step100"}),
        ("step10", {"step0": "step10", "step10": "step10", "step100": "step10"}),
    ],
)
def test_a_place_or_a_name_chooses_the_reference(configure, tmp_path, loads, setting, references):
    config = configure(tasks=[SIMILARITY], metadata={"similarity_tokens": 100, "reference": setting})
    assert main(["sweep", str(config)]) == 0
    notes = notes_of(tmp_path / "out")
    assert {step: note["reference"]["name"] for step, note in notes.items() if "reference" in note} == references
    assert loads == [], "each is measured before those that it is the reference of"
    found = metrics_of(tmp_path / "out")
    for step, reference in references.items():
        assert (found[step]["agreement"] == 1) == (step == reference)


def test_another_run_is_compared_at_the_same_step(configure, run_folder, save, tmp_path):
    for index, step in enumerate((0, 100)):
        save(
            (tmp_path / "other" / f"step{step}").parent.mkdir(exist_ok=True) or tmp_path / "other" / f"step{step}",
            7 + index,
        )
    config = configure(
        models=[str(run_folder), str(tmp_path / "other")],
        tasks=[SIMILARITY],
        metadata={"similarity_tokens": 100, "reference": "other"},
    )
    assert main(["sweep", str(config)]) == 0
    reasons = {}
    for path, document in files_of(tmp_path / "out").items():
        note = document["config"]["lmsat"]["probes"]["similarity"]
        reasons[path.rpartition("/")[0]] = note.get("reasons", {}).get("cka_last") or note["reference"]["name"]
    assert reasons["run/step0"] == "other step0"
    assert reasons["run/step10"] == "other has no checkpoint at the same step"
    assert reasons["run/step100"] == "other step100"


def test_another_reference_takes_the_place_of_the_old_one(configure, run_folder, save, tmp_path, capsys):
    config = str(configure(tasks=[SIMILARITY, "lmsat_head"], metadata={"similarity_tokens": 100}))
    assert main(["sweep", config]) == 0
    before = metrics_of(tmp_path / "out")
    save(run_folder / "step50", 9)
    capsys.readouterr()
    assert main(["sweep", config]) == 0
    # step50 is new, and step100 has another checkpoint before it; step10 stands.
    assert notes_of(tmp_path / "out")["step100"]["reference"]["name"] == "step50"
    documents = files_of(tmp_path / "out")
    assert len(documents) == 5
    [again] = [document for path, document in documents.items() if "supersedes" in document["config"]["lmsat"]]
    assert set(again["results"]) == {SIMILARITY}, "the head of step100 stands"
    table = Results.read(tmp_path / "out").table
    rows = table[(table.task == SIMILARITY) & (table.metric == "cka_last")]
    assert sorted(rows.revision) == ["step10", "step100", "step50"]
    assert rows.set_index("revision").value["step100"] != before["step100"]["cka_last"]


def test_a_reference_whose_files_change_counts_as_another(configure, run_folder, save, tmp_path):
    config = str(configure(tasks=[SIMILARITY], metadata={"similarity_tokens": 100}))
    assert main(["sweep", config]) == 0
    before = metrics_of(tmp_path / "out")
    shutil.rmtree(run_folder / "step10")
    save(run_folder / "step10", 11)
    assert main(["sweep", config]) == 0
    after = metrics_of(tmp_path / "out")
    assert after["step0"] == before["step0"]
    assert after["step100"] != before["step100"]


def test_a_broken_reference_costs_nothing_else(configure, run_folder, tmp_path, capsys):
    (run_folder / "step10" / "model.safetensors").write_bytes(b"cut")
    config = str(configure(tasks=[SIMILARITY, "lmsat-weights", "lmsat_loss"], metadata={"similarity_tokens": 100}))
    assert main(["sweep", config]) == 1
    assert "step10" in capsys.readouterr().err
    notes = notes_of(tmp_path / "out")
    assert notes.keys() == {"step0", "step100"}
    assert "step10 failed" in notes["step100"]["reasons"]["cka_last"]
    weights = metrics_of(tmp_path / "out", "lmsat-weights")["step100"]
    assert weights["relative_change"] is None
    assert weights["spectral_norm_max"] > 0
    assert metrics_of(tmp_path / "out", "lmsat_loss")["step100"]["loss"] > 0


def test_changes_of_weights_over_a_series(configure, save, run_folder, tmp_path, loads):
    save(run_folder / "step200", 5)
    config = str(configure(tasks=["lmsat-weights"]))
    assert main(["sweep", config]) == 0
    found, notes = metrics_of(tmp_path / "out", "lmsat-weights"), notes_of(tmp_path / "out", "weights")
    assert found["step0"]["relative_change"] is None
    assert found["step10"]["change_cosine"] is None
    assert "before the reference" in notes["step10"]["reasons"]["change_cosine"]
    assert -1 < found["step100"]["change_cosine"] < 0, "independent weights: about -1/2"
    assert loads == ["step0", "step10", "step100"]
    # One checkpoint alone: the two before it are read.
    shutil.rmtree(tmp_path / "out")
    assert main(["sweep", config, "--only", "run@step100"]) == 0
    assert metrics_of(tmp_path / "out", "lmsat-weights")["step100"] == found["step100"]
    assert loads[3:] == ["step10", "step0"]


def test_workers_and_processes_find_the_same(configure, tmp_path):
    config = str(configure(tasks=[SIMILARITY, "lmsat-weights"], metadata={"similarity_tokens": 100}))
    assert main(["sweep", config]) == 0
    alone = metrics_of(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    assert main(["sweep", config, "--executor", "processes", "--workers", "2"]) == 0
    assert metrics_of(tmp_path / "out") == alone


def test_an_outside_reference_is_named_once(configure, run_folder, save, tmp_path):
    save(tmp_path / "teacher", 3)
    config = configure(tasks=[SIMILARITY], metadata={"similarity_tokens": 100, "reference": str(tmp_path / "teacher")})
    assert main(["sweep", str(config)]) == 0
    assert {note["reference"]["name"] for note in notes_of(tmp_path / "out").values()} == {"teacher main"}
    missing = configure(
        tasks=[SIMILARITY], metadata={"reference": str(tmp_path / "nowhere")}, output=str(tmp_path / "b")
    )
    assert main(["sweep", str(missing)]) == 0
    assert "nowhere" in notes_of(tmp_path / "b")["step0"]["reasons"]["cka_last"]


def test_an_average_is_compared_with_the_average_before(configure, run_folder, tmp_path):
    config = configure(
        models=[{"pretrained": str(run_folder), "revisions": ["all", "average:2"]}], tasks=["lmsat-weights"]
    )
    assert main(["sweep", str(config)]) == 0
    found = [document["config"]["lmsat"] for document in files_of(tmp_path / "out").values()]
    notes = {note["checkpoint"]["revision"]: note["probes"]["weights"] for note in found}
    assert notes["average:2@step100"]["reference"]["name"] == "average:2@step10"
    assert "first checkpoint" in notes["average:2@step10"]["reasons"]["relative_change"]


def test_plans_know_references_without_reading_them(configure, tmp_path):
    config = configure(tasks=[SIMILARITY], metadata={"similarity_tokens": 100})
    assert main(["sweep", str(config)]) == 0
    plan = Plan(load_config(config))
    assert all(plan.weights_of(job) is not None for job in plan.jobs)


def test_what_is_computed_of_files_that_change_is_not_compared_with(configure, run_folder, save, tmp_path, monkeypatch):
    """While step10 is measured its files are exchanged: what was kept of it belongs to no checkpoint."""
    config = str(configure(tasks=[SIMILARITY], metadata={"similarity_tokens": 100}))
    load = CheckpointEvaluator.load
    changed = []

    def exchange(self, folder, **arguments):
        if arguments["revision"] == "step10" and not changed:
            changed.append(1)
            shutil.rmtree(run_folder / "step10")
            save(run_folder / "step10", 21)
        load(self, folder, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointEvaluator, "load", exchange)
        patch.setattr(KeptTensors, "tidy", lambda *_: None)
        main(["sweep", config])
    assert changed
    assert main(["sweep", config]) == 0
    found = metrics_of(tmp_path / "out")
    whole = str(configure(tasks=[SIMILARITY], metadata={"similarity_tokens": 100}, output=str(tmp_path / "whole")))
    assert main(["sweep", whole]) == 0
    assert metrics_of(tmp_path / "whole") == found


def test_what_was_computed_by_other_code_of_a_plugin_is_not_compared_with(configure, run_folder, tmp_path):
    """The last two checkpoints' tensors stay for the next sweep; with other code they are of no use to it."""
    probe = tmp_path / "mine.py"
    config = str(configure(tasks=["lmsat_head"], probes=[str(probe)]))

    def distances(factor: float, *arguments: str) -> dict[str, float]:
        probe.write_text(_DRIFT.replace("FACTOR", str(factor)), "utf-8")
        assert shared().run("sweep", config, *arguments).returncode == 0
        found = {}
        for path, document in sorted(files_of(tmp_path / "out").items()):
            if "lmsat_drift" in document["results"]:
                found[path.split("/")[1]] = document["results"]["lmsat_drift"]["distance,none"]
        return found

    once = distances(1.0)
    twice = distances(2.0, "--only", "run@step100")
    assert twice["step100"] == pytest.approx(2 * once["step100"])


def test_watching_measures_again_where_a_reference_is_another(configure, run_folder, save, tmp_path, monkeypatch):
    """A checkpoint that had no next one has one later, and it is exchanged while the sweep waits."""
    config = str(configure(tasks=[SIMILARITY], metadata={"similarity_tokens": 100, "reference": "next"}))
    aside = (run_folder / "step100").rename(tmp_path / "aside")
    looks, sleep = itertools.count(), time.sleep

    def between_looks(seconds: float) -> None:
        if seconds != 77:
            sleep(seconds)  # of what waits for the clock of a file system
            return
        look = next(looks)
        if look == 2:
            assert metrics_of(tmp_path / "out")["step10"]["cka_last"] is None
            aside.rename(run_folder / "step100")
        if look == 5:
            shutil.rmtree(run_folder / "step100")
            save(run_folder / "step100", 17)
        if look == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr("lmsat_plugin.sweeps.local.time.sleep", between_looks)
    assert main(["sweep", config, "--watch", "77"]) == 130
    monkeypatch.undo()
    watched = metrics_of(tmp_path / "out")
    whole = configure(
        tasks=[SIMILARITY], metadata={"similarity_tokens": 100, "reference": "next"}, output=str(tmp_path / "whole")
    )
    assert main(["sweep", str(whole)]) == 0
    assert watched == metrics_of(tmp_path / "whole")


def test_a_dry_run_knows_what_was_compared_with_a_folder_elsewhere(configure, save, tmp_path):
    config = configure(tasks=[SIMILARITY], metadata={"similarity_tokens": 100, "reference": str(tmp_path / "teacher")})

    def left() -> int:
        plan, store = Plan(load_config(config)), Store(tmp_path / "out")
        stored = {job: store.read(job.checkpoint) for job in plan.jobs}
        return sum(len(plan.pending(job, stored[job], job.known_weights(stored[job]))) for job in plan.jobs)

    assert main(["sweep", str(config)]) == 0
    assert left() == 0, "it is known that there is none"
    save(tmp_path / "teacher", 3)
    assert left() == 3
    assert main(["sweep", str(config)]) == 0
    assert left() == 0
    assert all(0 < each["cka_last"] < 1 for each in metrics_of(tmp_path / "out").values())
    shutil.rmtree(tmp_path / "teacher")
    save(tmp_path / "teacher", 4)
    assert left() == 3


def test_a_run_of_the_same_name_in_another_model_is_no_reference(configure, save, tmp_path):
    for number, name in enumerate(("one/seed0", "one/seed1", "two/seed0", "two/seed1")):
        (tmp_path / name).mkdir(parents=True)
        save(tmp_path / name / "step10", number)
    models = [str(tmp_path / "one"), str(tmp_path / "two")]

    def labels(setting: str) -> dict[str, str]:
        plan = Plan(load_config(configure(models=models, tasks=[SIMILARITY], metadata={"reference": setting})))
        found = {job.label: plan.reference(job, setting) for job in plan.jobs}
        return {label: each if isinstance(each, str) else each.label for label, each in found.items()}

    assert labels("seed0")["two seed1/step10"] == "two seed0/step10"
    assert labels("one")["two seed1/step10"] == "one seed1/step10"


def test_names_that_are_numbers_or_empty_or_nowhere(configure, run_folder, tmp_path, caplog):
    (run_folder / "step100").rename(run_folder / "100")
    given = [str(run_folder), "--tasks", "lmsat-weights,lmsat-sharpness", "--dry-run", "metadata.reference=100"]
    assert main(["sweep", *given, f"output={tmp_path / 'numbers'}"]) == 0
    assert main(["sweep", *given[:-1], "metadata.reference=", f"output={tmp_path / 'none'}"]) == 0
    plan = Plan(load_config(configure(tasks=["lmsat-weights"], metadata={"reference": 100})))
    assert {getattr(plan.reference(job, "100"), "label", None) for job in plan.jobs} == {"run 100"}
    caplog.clear()
    assert all("is not found" in str(plan.reference(job, "previuos")) for job in plan.jobs)
    assert [record.getMessage().partition(" is ")[0] for record in caplog.records] == ["reference=previuos"]


def test_the_command_that_measures_again_names_the_reference(configure, run_folder, tmp_path, capsys):
    config = configure(
        tasks=[SIMILARITY, "lmsat-sharpness"], metadata={"similarity_tokens": 100, "sharpness_tokens": 100}
    )
    assert main(["sweep", str(config)]) == 0
    [path] = (tmp_path / "out/run/step100").glob("results_*.json")
    files = {Path(name).parent.name: file for name, file in Results.read(tmp_path / "out").files.items()}
    file = files["step100"]
    commands = list(_of_file(file, {SIMILARITY: None, "lmsat-sharpness": None}))
    assert len(commands) == 2
    assert f"reference={run_folder / 'step10'}" in commands[0]
    assert "reference= " in f"{commands[1]} "
    capsys.readouterr()
    assert main(["eval", *shlex.split(commands[0])[1:], "--output_path", str(tmp_path / "again")]) == 0
    [again] = (tmp_path / "again").rglob("results_*.json")
    first, second = (json.loads(each.read_text())["results"][SIMILARITY] for each in (path, again))
    assert first == second
    assert list(_of_file(files["step0"], {SIMILARITY: None})) == []
