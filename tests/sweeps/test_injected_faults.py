"""Every operation on files of a short sweep fails once: the sweep says so, and the next one mends the store.

A sample of them; all with LMSAT_EXHAUSTIVE=1.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from fault_checks import check_accounted_for, check_disturbed, check_restarted, tally
from faults import EXHAUSTIVE, Case, Fault, faults_of, first_command, preloaded, run_all, sample_of
from quiz import write_quiz
from sweep_outputs import content_of
from warm_lmsat import WarmLmsat

from lmsat_plugin.sweeps.verification import verify


@pytest.fixture(scope="module")
def prepared(save, documents, tmp_path_factory) -> Path:
    """Return a folder with two checkpoints and one that is cut, and a configuration without an output folder."""
    folder = tmp_path_factory.mktemp("prepared")
    for name, step in (("good", 0), ("good", 10), ("bad", 0), ("bad", 10)):
        (folder / name).mkdir(exist_ok=True)
        save(folder / name / f"step{step}", step)
    weights = folder / "bad" / "step10" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents[3:8]))
    values = {
        "tasks": ["lmsat_loss", "quiz"],
        "include_path": str(write_quiz(folder / "quiz", train=2, test=3)),
        "corpus": str(folder / "corpus.jsonl"),
        "max_tokens": 200,
        "num_fewshot": 0,
        "log_samples": True,
        "device": "cpu",
    }
    for name, models in (("good", ["good"]), ("bad", ["bad"]), ("both", ["good", "bad"])):
        models = [str(folder / model) for model in models]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**values, "models": models, "output": "-"}))
    return folder


@pytest.fixture(scope="module")
def warm(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    first = first_command(["sweep", str(prepared / "both.yaml"), f"output={folder / 'first'}"], once=True)
    warm = WarmLmsat(folder, preloaded(folder), first)
    yield warm
    warm.close()


def damage(output: Path) -> None:
    """Cut a result, the arrays of another, and a record of failures, and leave what a kill leaves."""
    for folder in sorted(output.glob("*/step*")):
        for path in folder.glob("results_*"):
            path.write_bytes(path.read_bytes()[:-100])
            break
        (folder / ".results_x.json.lmsat.part").write_bytes(b"{")
        (folder / "failures.json").write_bytes(b"{")
        break


@pytest.mark.parametrize("model", ["good", "bad"])
def test_any_operation_on_files_fails(model, prepared, warm, tmp_path):
    config = str(prepared / f"{model}.yaml")
    before = tmp_path / "before"

    def case(output: Path, fault: Fault | None = None) -> Case:
        return Case(output, ["sweep", config, f"output={output}"], fault or Fault())

    def start_from_before(cases: list[Case]) -> list[Case]:
        for each in cases:
            shutil.copytree(before, each.root)
        return cases

    expected = int(model == "bad")
    [first] = run_all(warm, [case(before)], once=True)
    assert first.code == expected, first.output
    check_accounted_for(before, first.operations)
    damage(before)
    [undisturbed] = run_all(warm, start_from_before([case(tmp_path / "undisturbed")]), once=True)
    assert undisturbed.code == expected, undisturbed.output
    right = content_of(tmp_path / "undisturbed")
    assert not verify(tmp_path / "undisturbed").problems
    operations = undisturbed.operations
    faults = list(faults_of(operations))
    if not EXHAUSTIVE:
        faults = sample_of(faults, operations)[expected::2]
    print(len(operations), "operations,", len(faults), "faults:", tally(faults, operations))
    cases = start_from_before([case(tmp_path / str(index), fault) for index, fault in enumerate(faults)])
    all_disturbed = run_all(warm, cases, once=True)
    wrong = [check_disturbed(each, ended, right) for each, ended in zip(cases, all_disturbed, strict=True)]
    again = run_all(warm, [case(each.root) for each in cases], once=True)
    for index, (each, ended) in enumerate(zip(cases, again, strict=True)):
        wrong[index] += check_restarted(each, ended, right, expected)
    texts = [
        f"{each.fault} {operations[each.fault.number - 1]}: {said}\n{ended.output}"
        for each, ended, said in zip(cases, all_disturbed, wrong, strict=True)
        if said
    ]
    assert not texts, f"{len(texts)} of {len(faults)}:\n" + "\n".join(texts[:500])
