"""Adapters on the Hub, and on base models there: these are fetched once, and identify results by their commit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from evaluation import numbers
from peft_adapters import save_adapter
from sweep_outputs import files_of
from tiny_models import make_model

if TYPE_CHECKING:
    import subprocess

BASE, LORA = "org/base", "org/lora"


def name_base(adapter: Path, base: str, revision: str | None = None) -> None:
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": base, "revision": revision}))


@pytest.fixture
def hub(empty_hub, tmp_path, tokenizer):
    """Return a Hub with a base model and a repository of three adapters, the last with a whole model beside it."""
    base, adapters = tmp_path / "hub" / "base", {}
    make_model("llama").save_pretrained(base, max_shard_size="100KB")
    tokenizer.save_pretrained(base)
    for seed in (1, 2, 3):
        adapters[f"step{seed}"] = save_adapter(tmp_path / "hub" / f"step{seed}", base, seed)
        name_base(adapters[f"step{seed}"], BASE)
    make_model("llama", 9).save_pretrained(adapters["step3"])
    empty_hub.branches[BASE] = {"main": base}
    empty_hub.branches[LORA] = {**adapters, "main": adapters["step2"]}
    empty_hub.forget()
    yield empty_hub
    empty_hub.branches.clear()


@pytest.fixture
def sweep(tmp_path, corpus_file, warm_with_hub):
    """Return a function that runs a sweep against the Hub in a process of its own."""

    def run(*arguments: str, models: object = LORA, **changes) -> subprocess.CompletedProcess:
        values = {
            "models": [models],
            "tasks": ["lmsat_loss", "lmsat_head"],
            "corpus": str(corpus_file),
            "max_tokens": 400,
            "output": str(tmp_path / "out"),
            **changes,
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(values), "utf-8")
        return warm_with_hub.run("sweep", str(path), *arguments)

    return run


ALONE = """
import json, sys

from evaluation import evaluate

from lmsat_plugin import measure

lora, base, local, corpus = sys.argv[1:]
text = {"corpus": corpus, "max_tokens": 400, "batch_size": "auto"}
ways = {"pretrained": lora, "revision": "step1"}, {"pretrained": base, "peft": local}, {"pretrained": local}
for model_args in ways:
    results = evaluate("lmsat", ["lmsat_loss", "lmsat_head"], model_args={**model_args, "device": "cpu"}, **text)
    values = {t: {k: v for k, v in of.items() if "stderr" not in k} for t, of in results["results"].items()}
    print(json.dumps({"results": values, "config": {"lmsat": results["config"]["lmsat"]}}, default=str))
outcome = measure(lora, ["loss", "head"], revision="step1", **text)
values = {}
for name, value in outcome.metrics.items():
    task, metric = name.split("/")
    if "stderr" not in metric:
        values.setdefault(task, {})[metric + ",none"] = value
print(json.dumps({"results": values, "config": {"lmsat": outcome.provenance}}, default=str))
"""


def sent(hub, folder: str) -> int:
    return sum(size for path, size in hub.sent.items() if folder in path)


def test_adapters_of_the_hub_are_swept(hub, sweep, tmp_path, warm_with_hub, corpus_file):
    done = sweep()
    assert done.returncode == 0, done.stderr
    assert "3 measured" in done.stdout
    commit = hub.commit(BASE, "main")
    found = {path.split("/")[1]: document for path, document in files_of(tmp_path / "out").items()}
    assert found.keys() == {"step1", "step2", "step3"}
    for document in found.values():
        notes = document["config"]["lmsat"]
        assert notes["checkpoint"]["base"]["identity"] == f"{BASE}@{commit}"
        assert notes["adapter"]["base"] == BASE
        assert notes["adapter"]["base_commit"] == commit
        assert notes["identities"][0]["weights"] == f"{notes['checkpoint']['commit']} on {BASE}@{commit}"
    verified = warm_with_hub.run("verify", str(tmp_path / "out"))
    assert verified.returncode == 0, verified.stdout
    hub.forget()
    assert "0 measured, 3 done before" in sweep().stdout
    assert not hub.sent
    # The same alone: from the Hub, with the base named beside, and from a folder on a base of the Hub.
    local = shutil.copytree(hub.branches[LORA]["step1"], tmp_path / "step1")
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    hub.forget()
    done = warm_with_hub.run(str(script), LORA, BASE, str(local), str(corpus_file))
    assert done.returncode == 0, done.stderr
    plain = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(plain) == 4
    for results in plain:
        assert numbers(results) == {k: v for k, v in numbers(found["step1"]).items() if "stderr" not in k[1]}
        assert results["config"]["lmsat"]["adapter"]["base_commit"] == commit
    own = hub.commit(LORA, "step1")
    # That of what is loaded, not of a base that another adapter may be on, too.
    commits = [results["config"]["lmsat"]["commit"] for results in plain]
    assert [commits[0], commits[2], commits[3]] == [own, None, own]
    # The whole model that lies beside an adapter on the Hub is not its base, for transformers neither.
    assert not sent(hub, "step3")


def test_base_that_moves_on_the_hub_is_measured_again(hub, sweep, tmp_path):
    name_base(hub.branches[LORA]["step1"], BASE, hub.commit(BASE, "main"))
    hub.branches[LORA].pop("step3")
    assert sweep(tasks=["lmsat_head"]).returncode == 0
    [first] = {
        document["results"]["lmsat_head"]["stable_rank,none"] for document in files_of(tmp_path / "out").values()
    }
    old = hub.branches[BASE]["main"]
    moved = shutil.copytree(old, tmp_path / "hub" / "moved")
    make_model("llama", 5).save_pretrained(moved, max_shard_size="100KB")
    hub.branches[BASE] = {"main": moved, "old": old}
    planned = sweep("--dry-run", tasks=["lmsat_head"])
    assert planned.returncode == 0, planned.stderr
    done = sweep(tasks=["lmsat_head"])
    # One names a commit, which stays.
    assert "1 measured, 1 done before" in done.stdout, done.stdout + done.stderr
    values = {d["results"]["lmsat_head"]["stable_rank,none"] for d in files_of(tmp_path / "out").values()}
    assert len(values) == 2
    assert first in values
    assert "0 measured, 2 done before" in sweep(tasks=["lmsat_head"]).stdout


def test_base_that_the_hub_lacks_is_said(hub, sweep, tmp_path):
    for adapter in hub.branches[LORA].values():
        name_base(adapter, "org/gone")
    done = sweep()
    assert done.returncode == 1
    sentence = "the base model org/gone, which "
    assert sentence in done.stdout
    assert "cannot be had (the Hub has no org/gone" in done.stdout
    assert "correct base_model_name_or_path there, or give pretrained=BASE,peft=" in done.stdout
    assert "3 failed" in done.stdout
