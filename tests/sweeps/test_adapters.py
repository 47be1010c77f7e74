"""Series of adapters: every way to one gives the same numbers, and a changed adapter or base is measured again."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
import yaml
from evaluation import TASKS, evaluate, numbers
from peft_adapters import load_with_peft, save_adapter
from sweep_outputs import files_of
from tiny_models import make_model
from tiny_tokenizers import prepending_bos

from lmsat_plugin import measure
from lmsat_plugin.cli.main import main
from lmsat_plugin.harness import adapters_put_on
from lmsat_plugin.sweeps.fingerprint import ChangedError, SeenFiles, fingerprint

if TYPE_CHECKING:
    from pathlib import Path

PROBES = [task.removeprefix("lmsat_") for task in TASKS]


def values_of(results) -> dict[tuple[str, str], float]:
    return {key: value for key, value in numbers(results).items() if "stderr" not in key[1]}


def metrics_of(outcome) -> dict[tuple[str, str], float]:
    pairs = ((name.split("/"), value) for name, value in outcome.metrics.items())
    return {(task, f"{metric},none"): value for (task, metric), value in pairs if "stderr" not in metric}


def swept(output: Path) -> dict[str, dict[tuple[str, str], float]]:
    """Return the values of each checkpoint in an output folder."""
    found: dict[str, dict] = {}
    for path, document in sorted(files_of(output).items()):
        found.setdefault(path.split("/")[1], {}).update(values_of(document))
    return found


@pytest.fixture
def base(tmp_path, save) -> Path:
    return save(tmp_path / "base", 0, "llama")


@pytest.fixture
def run(tmp_path, base) -> Path:
    """Return the folder of a run of three adapters."""
    for seed in (1, 2, 3):
        save_adapter(tmp_path / "run" / f"checkpoint-{seed}00", base, seed)
    return tmp_path / "run"


@pytest.fixture
def sweep(tmp_path, corpus_file, capsys):
    """Return a function that runs a sweep in this process, and returns its exit code and what it printed."""

    def sweep(*arguments: str, models, **changes) -> tuple[int, str]:
        values = {"models": models, "tasks": TASKS, "corpus": str(corpus_file), "max_tokens": 400, "device": "cpu"}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({**values, "output": str(tmp_path / "out"), **changes}))
        code = main(["sweep", str(path), *arguments])
        return code, capsys.readouterr().out

    return sweep


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """Return a list that fills with the adapters that are put on a base that is loaded anew."""
    names: list[str] = []
    plain = adapters_put_on.put_on

    def put_on(model, adapter, **arguments):
        names.append(adapter.folder.name)
        return plain(model, adapter, **arguments)

    monkeypatch.setattr(adapters_put_on, "put_on", put_on)
    return names


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gpt2"])
def test_all_ways_to_an_adapter_agree(architecture, tmp_path, save, sweep, loaded, corpus_file):
    base = save(tmp_path / "base", 0, architecture)
    for seed in (1, 2, 3):
        save_adapter(tmp_path / "run" / f"checkpoint-{seed}00", base, seed)
    text = {"corpus": str(corpus_file), "max_tokens": 400, "batch_size": "auto"}
    assert sweep(models=[str(tmp_path / "run")])[0] == 0
    # The base is loaded once, and the adapters exchanged.
    assert loaded == ["checkpoint-100"]
    assert sweep(models=[str(tmp_path / "run")], tasks=["lmsat_head"], output=str(tmp_path / "heads"))[0] == 0
    assert len(loaded) == 1
    of_sweep, of_heads = swept(tmp_path / "out"), swept(tmp_path / "heads")
    expected_of = {}
    for seed in (1, 2, 3):
        name = f"checkpoint-{seed}00"
        adapter = tmp_path / "run" / name
        outcome = measure(load_with_peft(base, adapter), PROBES, tokenizer=str(base), **text)
        expected_of[name] = expected = metrics_of(outcome)
        assert len(expected) > 10
        assert of_sweep[name] == expected
        assert of_heads[name] == {key: value for key, value in expected.items() if key[0] == "lmsat_head"}
        assert metrics_of(measure(adapter, PROBES, **text)) == expected
    for model_args in (
        {"pretrained": str(adapter)},
        {"pretrained": str(base), "peft": str(adapter)},
        {"pretrained": load_with_peft(base, adapter), "tokenizer": str(base)},
    ):
        results = evaluate("lmsat", model_args={**model_args, "device": "cpu"}, **text)
        assert values_of(results) == expected
        assert results["config"]["lmsat"]["adapter"]["base"] == str(base)
    losses = {values["lmsat_loss", "loss,none"] for values in expected_of.values()}
    assert len(losses | {measure(base, ["loss"], **text).metrics["lmsat_loss/loss"]}) == 4


@pytest.mark.parametrize(
    "settings",
    [{"target_modules": ["c_attn", "lm_head"]}, {"modules_to_save": ["lm_head"]}, {"trainable_token_indices": [3, 4]}],
)
def test_all_ways_to_an_adapter_on_tied_embeddings_agree(settings, tmp_path, save, corpus_file):
    """lm-eval would tie the head again of a model that is loaded already."""
    base = save(tmp_path / "base", 0, "gpt2")
    adapter = save_adapter(tmp_path / "adapter", base, **settings)
    text = {"corpus": str(corpus_file), "max_tokens": 400, "batch_size": "auto"}
    loaded = load_with_peft(base, adapter)
    expected = metrics_of(measure(loaded, PROBES, tokenizer=str(base), **text))
    outcome = measure(adapter, PROBES, **text)
    assert metrics_of(outcome) == expected
    assert not outcome.provenance["tied_head"]
    assert outcome.provenance["head_form"].startswith("verified")
    for model_args in ({"pretrained": loaded, "tokenizer": str(base)}, {"pretrained": str(base), "peft": str(adapter)}):
        assert values_of(evaluate("lmsat", model_args={**model_args, "device": "cpu"}, **text)) == expected


def test_results_name_adapter_and_base(run, base, sweep, tmp_path):
    assert sweep(models=[str(run)], tasks=["lmsat_head"])[0] == 0
    notes = files_of(tmp_path / "out").popitem()[1]["config"]["lmsat"]
    adapter = str(run / notes["checkpoint"]["revision"])
    assert notes["adapter"] == {"adapter": adapter, "kind": "LORA", "base": str(base), "merged": False}
    assert notes["checkpoint"]["base"]["name"] == str(base)
    assert notes["checkpoint"]["base"]["identity"] == fingerprint(base).identity


def test_adapters_that_cannot_be_exchanged_are_loaded_anew(tmp_path, base, run, sweep, loaded, corpus_file):
    other = shutil.copytree(base, tmp_path / "other")
    make_model("llama", 5).save_pretrained(other)
    save_adapter(run / "checkpoint-400", base, r=2)
    save_adapter(run / "checkpoint-500", base, target_modules=["q_proj"])
    save_adapter(run / "checkpoint-600", base, target_modules=["q_proj"], modules_to_save=["lm_head"])
    save_adapter(run / "checkpoint-700", base, target_modules=["q_proj", "lm_head"])
    save_adapter(run / "checkpoint-800", base, target_modules=["q_proj"], rows=600)
    save_adapter(run / "checkpoint-900", other)
    shutil.copytree(base, run / "checkpoint-1000")
    save_adapter(run / "checkpoint-1100", other, 2)
    save_adapter(run / "checkpoint-1200", other, 3)
    code, out = sweep(models=[str(run)])
    assert code == 0, out
    assert loaded == [f"checkpoint-{number}00" for number in (1, 4, 5, 6, 7, 8, 9, 11)]
    found = swept(tmp_path / "out")
    assert len(found) == 12
    # The LM head alone, where it is the base's own, and with the rest where the adapter changes it.
    assert sweep(models=[str(run)], tasks=["lmsat_head"], output=str(tmp_path / "heads"))[0] == 0
    assert loaded[8:] == ["checkpoint-600", "checkpoint-700", "checkpoint-800"]
    heads = swept(tmp_path / "heads")
    for name, values in found.items():
        outcome = measure(run / name, PROBES, corpus=str(corpus_file), max_tokens=400)
        assert metrics_of(outcome) == values, name
        assert heads[name] == {key: value for key, value in values.items() if key[0] == "lmsat_head"}, name
    own = {name for name, values in heads.items() if values != heads["checkpoint-1000"]}
    assert own == {f"checkpoint-{number}00" for number in (6, 7, 9, 11, 12)}


def test_changed_adapter_or_base_is_measured_again(tmp_path, base, run, sweep, loaded):
    assert "3 measured" in sweep(models=[str(run)])[1]
    first = swept(tmp_path / "out")
    assert "0 measured, 3 done before" in sweep(models=[str(run)])[1]
    shutil.rmtree(run / "checkpoint-200")
    save_adapter(run / "checkpoint-200", base, 7)
    assert "1 measured, 2 done before" in sweep(models=[str(run)])[1]
    shutil.rmtree(tmp_path / "out")
    assert "3 measured" in sweep(models=[str(run)])[1]
    second = swept(tmp_path / "out")
    assert [name for name in first if first[name] != second[name]] == ["checkpoint-200"]
    # Where the base lies is not what it is.
    moved = base.rename(tmp_path / "moved")
    for path in run.glob("*/adapter_config.json"):
        path.write_text(path.read_text().replace(str(base), str(moved)))
    loaded.clear()
    assert "0 measured, 3 done before" in sweep(models=[str(run)])[1]
    assert not loaded
    make_model("llama", 5).save_pretrained(moved)
    assert "3 measured, 0 done before" in sweep(models=[str(run)])[1]
    assert loaded == ["checkpoint-100"]


def test_base_that_changes_within_a_sweep_is_loaded_anew(tmp_path, base, run, sweep, loaded, monkeypatch):
    from lmsat_plugin.sweeps import job_runner

    plain, looked = job_runner.SeenFiles.of, []

    def replacing_the_base(folder):
        looked.append(folder)
        if len(looked) == 3:
            make_model("llama", 5).save_pretrained(base)
        return plain(folder)

    monkeypatch.setattr(job_runner.SeenFiles, "of", replacing_the_base)
    code, out = sweep(models=[str(run)], tasks=["lmsat_loss"])
    assert code == 0, out
    assert sweep(models=[str(run)], tasks=["lmsat_loss"], output=str(tmp_path / "again"))[0] == 0
    again, found = swept(tmp_path / "again"), swept(tmp_path / "out")
    assert found["checkpoint-300"] == again["checkpoint-300"]
    assert found["checkpoint-100"] != again["checkpoint-100"]


def test_files_of_the_base_are_the_adapters(run, base):
    seen = SeenFiles.of(run / "checkpoint-100")
    assert {str(base / name) for name in ("config.json", "model.safetensors")} <= seen.stamp.keys()
    seen.check()
    os.utime(base / "model.safetensors")
    with pytest.raises(ChangedError, match=r"base/model.safetensors changed while the checkpoint was measured"):
        seen.check()


def test_adapter_is_never_called_identical_with_its_base(tmp_path, base, sweep):
    """Not even one that has learned nothing yet, which computes the same."""
    run = tmp_path / "run"
    shutil.copytree(base, run / "checkpoint-0")
    for number in (1, 2):
        save_adapter(run / f"checkpoint-{number}", base)
        path = run / f"checkpoint-{number}" / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 0}))
    shutil.copytree(base, run / "checkpoint-3")
    shutil.copytree(run / "checkpoint-2", run / "checkpoint-3", dirs_exist_ok=True)
    code, out = sweep(models=[str(run)])
    assert code == 0, out
    found = swept(tmp_path / "out")
    assert found["checkpoint-0"] == found["checkpoint-1"] == found["checkpoint-3"]
    [line] = [line for line in out.splitlines() if line.startswith("Identical weights")]
    assert "checkpoint-0" not in line
    assert "run checkpoint-1, run checkpoint-2" in line
    adapted = {"pretrained": str(base), "model_args": {"peft": str(run / "checkpoint-1")}, "name": "adapted"}
    code, out = sweep(models=[str(base), adapted], tasks=["lmsat_head"], output=str(tmp_path / "two"))
    assert code == 0, out
    assert "Identical weights" not in out


def test_missing_base_is_said_and_waited_for(tmp_path, base, run, sweep):
    hidden = base.rename(tmp_path / "hidden")
    code, out = sweep(models=[str(run)], tasks=["lmsat_head"])
    assert code == 1
    assert f"the base model {base}, which {run}/checkpoint-100/adapter_config.json names, is not there: correct" in out
    assert "3 failed" in sweep(models=[str(run)], tasks=["lmsat_head"])[1]
    hidden.rename(base)
    assert "3 measured" in sweep(models=[str(run)], tasks=["lmsat_head"])[1]


def test_merged_adapters_are_results_of_their_own(tmp_path, run, base, sweep, loaded, corpus_file):
    assert sweep(models=[str(run)])[0] == 0
    apart = swept(tmp_path / "out")
    entry = {"pretrained": str(run), "merge": True}
    code, out = sweep(models=[entry])
    assert code == 0
    assert "3 measured, 0 done before" in out
    assert loaded == ["checkpoint-100", "checkpoint-100", "checkpoint-200", "checkpoint-300"]
    merged = {
        path.split("/")[1]: document
        for path, document in files_of(tmp_path / "out").items()
        if document["config"]["lmsat"]["adapter"]["merged"]
    }
    assert merged.keys() == apart.keys()
    for name, document in merged.items():
        ours = values_of(document)
        outcome = measure(run / name, PROBES, corpus=str(corpus_file), max_tokens=400, merge=True)
        assert metrics_of(outcome) == ours
        assert ours == pytest.approx(apart[name], rel=1e-4)
        assert ours["lmsat_loss", "loss,none"] == pytest.approx(apart[name]["lmsat_loss", "loss,none"], rel=1e-5)
        arguments = document["config"]["model_args"]
        assert arguments == {"pretrained": str(run / name), "merge": True}
    assert "0 measured, 3 done before" in sweep(models=[entry])[1]
    assert "0 measured, 3 done before" in sweep(models=[str(run)])[1]
    # The head alone, and what is no adapter.
    assert sweep(models=[entry], tasks=["lmsat_head"], output=str(tmp_path / "heads"))[0] == 0
    code, out = sweep(
        models=[{"pretrained": str(base), "merge": True}], tasks=["lmsat_head"], output=str(tmp_path / "none")
    )
    assert code == 1
    assert f"merge=True is for an adapter, and pretrained={base} is none: leave it out" in out


def test_tokenizer_is_the_adapters_own_if_it_has_one(tmp_path, run, sweep, tokenizer, corpus_file):
    other = prepending_bos(tokenizer)
    other.save_pretrained(run / "checkpoint-200")
    assert sweep(models=[str(run)], tasks=["lmsat_loss"])[0] == 0
    auto = {}
    for path, document in files_of(tmp_path / "out").items():
        name, notes = path.split("/")[1], document["config"]["lmsat"]
        auto[name] = notes["checkpoint"]["auto_prefix"]
        outcome = measure(run / name, ["loss"], corpus=str(corpus_file), max_tokens=400)
        assert metrics_of(outcome) == values_of(document)
        assert outcome.provenance["corpus"]["tokenizer_sha256"] == notes["corpus"]["tokenizer_sha256"]
    assert auto == {"checkpoint-100": "document", "checkpoint-200": "window", "checkpoint-300": "document"}
    base = str(tmp_path / "base")
    given = {"pretrained": base, "peft": str(run / "checkpoint-200"), "device": "cpu"}
    text = {"corpus": str(corpus_file), "max_tokens": 400, "batch_size": "auto"}
    results = evaluate("lmsat", ["lmsat_loss"], model_args=given, **text)
    assert values_of(results) == swept(tmp_path / "out")["checkpoint-200"]
