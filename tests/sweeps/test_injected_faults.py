"""Every operation on files of a short sweep fails once: the sweep says so, and the next one mends the store.

A sample of them; all with LMSAT_EXHAUSTIVE=1.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
import yaml
from exhaustive import EXHAUSTIVE
from fault_checks import check_accounted_for, check_disturbed, check_restarted, tally
from faults import Case, Ended, Fault, faults_of, first_command, preloaded, run_all, sample_of
from quiz import write_quiz
from sweep_outputs import content_of, files_below
from warm_lmsat import WarmLmsat

from lmsat_plugin.sweeps.verification import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOTHING = Fault()


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
    before, undisturbed, expected = tmp_path / "before", tmp_path / "undisturbed", int(model == "bad")

    def case(output: Path, fault: Fault = NOTHING) -> Case:
        return Case(output, ["sweep", str(prepared / f"{model}.yaml"), f"output={output}"], fault)

    [first] = run_all(warm, [case(before)], once=True)
    assert first.code == expected, first.output
    check_accounted_for(before, first.operations)
    damage(before)
    shutil.copytree(before, undisturbed)
    [ended] = run_all(warm, [case(undisturbed)], once=True)
    assert ended.code == expected, ended.output
    assert not verify(undisturbed).problems
    faults = list(faults_of(ended.operations))
    if not EXHAUSTIVE:
        faults = sample_of(faults, ended.operations)[expected::4]
    cases = [case(tmp_path / str(index), fault) for index, fault in enumerate(faults)]
    for each in cases:
        shutil.copytree(before, each.root)
    check_all(cases, partial(run_all, warm, once=True), undisturbed, ended)


def check_all(cases: list[Case], run: Callable[[list[Case]], list[Ended]], undisturbed: Path, as_is: Ended) -> None:
    """Run commands that meet faults, and each once more without; assert that all is as if there were none."""
    right, operations = content_of(undisturbed), as_is.operations
    print(len(operations), "operations,", len(cases), "faults:", tally([each.fault for each in cases], operations))
    all_disturbed = run(cases)
    wrong = [check_disturbed(each, ended, right) for each, ended in zip(cases, all_disturbed, strict=True)]
    again = run([replace(each, fault=NOTHING) for each in cases])
    for said, each, ended in zip(wrong, cases, again, strict=True):
        said += check_restarted(each, ended, right, as_is.code)
    texts = [
        f"{each.fault} {operations[each.fault.number - 1]}: {said}\n{ended.output}"
        for each, ended, said in zip(cases, all_disturbed, wrong, strict=True)
        if said
    ]
    assert not texts, f"{len(texts)} of {len(cases)}:\n" + "\n".join(texts[:500])


def test_any_operation_on_files_fails_while_heads_are_trained(prepared, warm, tmp_path):
    """The state of the training, and the heads that are kept."""
    undisturbed = tmp_path / "undisturbed"

    def case(root: Path, fault: Fault = NOTHING) -> Case:
        metadata = f"metadata={{ranks: [4], train_tokens: 600, batch_tokens: 128, heads: {root}/heads}}"
        options = ["tasks=[lmsat_rank_head]", "models=[{pretrained: " + str(prepared / "good") + ", revisions: last}]"]
        return Case(root, ["sweep", str(prepared / "good.yaml"), *options, metadata, f"output={root}/out"], fault)

    [ended] = run_all(warm, [case(undisturbed)])
    assert ended.code == 0, ended.output
    check_accounted_for(undisturbed, ended.operations)
    assert any(operation.kind == "rename" and "/training_" in operation.other for operation in ended.operations)
    faults = [fault for fault in faults_of(ended.operations) if "/heads" in ended.operations[fault.number - 1].path]
    # A file that is there though its making was said to have failed is known to nobody.
    faults = [f for f in faults if (f.way, ended.operations[f.number - 1].kind) != ("half", "open")]
    if not EXHAUSTIVE:
        faults = sample_of(faults, ended.operations)[::7]
    cases = [case(tmp_path / str(index), fault) for index, fault in enumerate(faults)]
    check_all(cases, partial(run_all, warm), undisturbed, ended)
    for each in cases:
        heads = files_below(each.root / "heads")
        if ended.operations[each.fault.number - 1].kind == "unlink":
            # The state of a training that is finished stays until the training is asked for again.
            heads = {name: content for name, content in heads.items() if not name.startswith("training_")}
        assert heads == files_below(undisturbed / "heads"), each.fault
