"""Every request to the Hub of a short sweep goes wrong once, and every operation on its downloads fails once.

The sweep waits, or the next one mends what is missing. A sample of them; all with LMSAT_EXHAUSTIVE=1.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml
from exhaustive import EXHAUSTIVE
from fake_hub import FakeHub, hub_environment
from fault_checks import check_disturbed, check_restarted, tally
from faults import Case, Ended, Fault, faults_of, first_command, preloaded, run_all, sample_of
from sweep_outputs import content_of
from tiny_models import make_model
from warm_lmsat import WarmLmsat

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WAYS = ("reset", "away", "half", "other", "page", "redirect", "429", "500", "503")


@pytest.fixture(scope="module")
def hub(tokenizer, tmp_path_factory):
    """Return a Hub with two repositories: one of two revisions, and one to begin with."""
    folder = tmp_path_factory.mktemp("hub")
    for index, revision in enumerate(("step0", "step10")):
        make_model("gpt_neox", index).save_pretrained(folder / revision)
        tokenizer.save_pretrained(folder / revision)
    hub = FakeHub({"org/small": {r: folder / r for r in ("step0", "step10")}, "org/first": {"step0": folder / "step0"}})
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def sweep(hub, documents, tmp_path_factory):
    """Return a function that sweeps a repository in a process of its own, with a fault of the Hub or of the disk."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents[3:8]))
    values = {"tasks": ["lmsat_loss"], "corpus": str(folder / "corpus.jsonl"), "max_tokens": 200, "device": "cpu"}
    for name in ("first", "small"):
        text = yaml.safe_dump({**values, "models": [f"org/{name}"], "output": str(folder / name), "keep": 0})
        (folder / f"{name}.yaml").write_text(text)
    environment = preloaded(folder, hub_environment(hub, folder / "home"))
    warm = WarmLmsat(folder, environment, first_command(["sweep", str(folder / "first.yaml")], once=False))

    def sweep(output: Path, of_hub: tuple[int, str] | None = None, of_disk: Fault | None = None) -> tuple[Case, Ended]:
        hub.forget()
        hub.fault = of_hub
        case = Case(output, ["sweep", str(folder / "small.yaml"), f"output={output}"], of_disk or Fault())
        return case, run_all(warm, [case])[0]

    yield sweep
    warm.close()


def test_any_request_goes_wrong(sweep, hub, tmp_path):
    _, undisturbed = sweep(tmp_path / "undisturbed")
    assert undisturbed.code == 0, undisturbed.output
    right, requests = content_of(tmp_path / "undisturbed"), hub.asked
    faults = [(number, way) for way in WAYS for number in range(1, requests + 1)]
    if not EXHAUSTIVE:
        faults = [(1 + index * requests // len(WAYS), way) for index, way in enumerate(WAYS)]
    print(requests, "requests,", len(faults), "faults")
    check_all(sweep, [(fault, {"of_hub": fault}) for fault in faults], tmp_path, right)


def test_any_operation_on_files_fails(sweep, tmp_path):
    """Of huggingface_hub, too, which writes what is downloaded."""
    _, undisturbed = sweep(tmp_path / "undisturbed")
    right, operations = content_of(tmp_path / "undisturbed"), undisturbed.operations
    assert any(operation.kind == "write" and "incomplete" in operation.path for operation in operations)
    faults = list(faults_of(operations))
    if not EXHAUSTIVE:
        faults = sample_of(faults, operations)[::10]
    print(len(operations), "operations,", len(faults), "faults:", tally(faults, operations))
    cases = [(f"{fault} {operations[fault.number - 1]}", {"of_disk": fault}) for fault in faults]
    check_all(sweep, cases, tmp_path, right)


def check_all(sweep: Callable, cases: list[tuple[object, dict]], root: Path, right: dict[str, object]) -> None:
    """Run sweeps that meet named faults, and each that failed once more; assert that all is right then."""
    wrong = []
    for index, (name, fault) in enumerate(cases):
        case, disturbed = sweep(root / str(index), **fault)
        said, output = check_disturbed(case, disturbed, right), disturbed.output
        if disturbed.code:
            case, disturbed = sweep(case.root)
        if said := said + check_restarted(case, disturbed, right):
            wrong.append(f"{name}: {said}\n{output}")
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong)
