"""Requests of several tasks in one call: shared passes, arrays, and notes that name the tasks."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from evaluation import evaluate, numbers, write_probe_task
from lm_eval.api.instance import Instance
from lm_eval.utils import handle_non_serializable
from safetensors.numpy import load_file
from tiny_models import VOCAB, WINDOW

from lmsat_plugin import Measurement, Need, Probe, Results, Settings, hookimpl
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness import probe_requests
from lmsat_plugin.harness.probe_requests import ProbeRequest
from lmsat_plugin.measurement.execution import Processes
from lmsat_plugin.plugins import plugins
from lmsat_plugin.text.corpora import CorpusSettings


def count_calls(lm) -> list[tuple[int, ...]]:
    """Return a list to which each forward pass of the model without its head adds its shape."""
    shapes = []

    def record(module, args, kwargs):
        shapes.append(tuple((args[0] if args else kwargs["input_ids"]).shape))

    lm.model.base_model.register_forward_pre_hook(record, with_kwargs=True)
    return shapes


def test_tasks_share_one_forward_pass(lm, documents, tmp_path):
    (tmp_path / "long.txt").write_text("".join(documents))
    shapes = count_calls(lm)
    # Eleven full windows, two a batch.
    corpus = {"corpus": str(tmp_path / "long.txt"), "max_tokens": 11 * WINDOW}
    evaluate(lm, **corpus)
    check, batches = shapes[:-6], shapes[-6:]
    assert batches == [(2, WINDOW)] * 5 + [(1, WINDOW)]
    assert len(check) <= 2
    assert set(check) == {(2, 16)}, "the check of the parts looks at the first tokens alone"
    shapes.clear()
    evaluate(lm, ["lmsat_loss"], **corpus)
    assert shapes == check + batches
    shapes.clear()
    evaluate(lm, ["lmsat_head"], **corpus)
    assert shapes == []


def test_other_corpus_in_the_same_process_gives_other_numbers(lm, corpus_file):
    """Neither corpora nor answers of an earlier run are taken for this one's; a file may also have changed."""
    before = evaluate(lm, ["lmsat_loss"], corpus=str(corpus_file))
    corpus_file.write_text('{"text": "another text"}\n')
    after = evaluate(lm, ["lmsat_loss"], corpus=str(corpus_file))
    assert numbers(after)["lmsat_loss", "bytes,none"] == len("another text")
    assert numbers(before)["lmsat_loss", "bytes,none"] > 1000


def test_arrays_are_stored(model_args, corpus_file, tmp_path):
    folder = tmp_path / "arrays"
    results = evaluate("lmsat", model_args={**model_args, "arrays": str(folder)}, corpus=str(corpus_file))
    [path] = folder.iterdir()
    assert results["config"]["lmsat"]["arrays"] == str(path.resolve())
    assert path.suffix == ".safetensors"
    assert results["config"]["lmsat"]["arrays_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert results["config"]["lmsat"]["arrays_content"]["loss/by_position"] == ["float64", [WINDOW]]
    arrays, found = load_file(path), numbers(results)
    assert set(arrays) == {
        *("loss/by_position", "loss/by_position_tokens"),
        *("loss/by_document", "loss/by_document_tokens", "loss/by_document_bytes"),
        *("loss/by_frequency", "loss/by_frequency_tokens"),
        *("anisotropy/by_layer", "anisotropy/mean_norm_by_layer", "anisotropy/last_covariance_eigenvalues"),
        "head/singular_values",
    }
    tokens = arrays["loss/by_position_tokens"]
    assert tokens.sum() == arrays["loss/by_document_tokens"].sum() == found["lmsat_loss", "tokens,none"]
    loss = pytest.approx(found["lmsat_loss", "loss,none"], rel=1e-12)
    assert arrays["loss/by_document"].sum() / tokens.sum() == loss
    assert (arrays["loss/by_position"] * tokens).sum() / tokens.sum() == loss
    assert arrays["anisotropy/by_layer"][-1] == found["lmsat_anisotropy", "anisotropy_last,none"]
    s = arrays["head/singular_values"]
    assert s[0] / s[-1] == found["lmsat_head", "condition_number,none"]


def test_other_measurement_keeps_the_arrays_of_the_first(model_args, corpus_file, tmp_path):
    arguments = {**model_args, "arrays": str(tmp_path / "arrays")}
    for max_tokens in (100, 200, 100):
        evaluate("lmsat", ["lmsat_loss"], model_args=arguments, corpus=str(corpus_file), max_tokens=max_tokens)
    totals = {load_file(path)["loss/by_position_tokens"].sum() for path in (tmp_path / "arrays").iterdir()}
    assert totals == {100, 200}


def test_tasks_on_different_corpora_are_passes_of_their_own(lm, tmp_path):
    for name, text in {"one": "first text", "two": "the second"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
        write_probe_task(tmp_path / "tasks", name, f"probe: loss\nmetadata:\n  corpus: {tmp_path / name}.txt\n")
    together = numbers(evaluate(lm, ["one", "two"], [tmp_path / "tasks"]))
    for name, text in {"one": "first text", "two": "the second"}.items():
        alone = evaluate(lm, [name], [tmp_path / "tasks"])
        assert alone["config"]["lmsat"]["corpus"]["corpus"] == str(tmp_path / f"{name}.txt")
        assert together[name, "bytes,none"] == len(text)
        assert together[name, "loss,none"] == numbers(alone)[name, "loss,none"]


def test_each_task_finds_its_own_notes_and_arrays(model_args, tmp_path):
    """Of two tasks of one probe on two corpora, and one of weights alone, in one run."""
    texts = {"lmsat_loss": "some words and more", "my_loss": "the other corpus. " * 9}
    for task, text in texts.items():
        (tmp_path / f"{task}.txt").write_text(text)
        corpus = f"probe: loss\nmetadata:\n  corpus: {tmp_path / task}.txt\n"
        write_probe_task(tmp_path / "tasks", task, corpus)
    arguments = {**model_args, "arrays": str(tmp_path / "arrays")}
    tasks = ["my_loss", "lmsat_head", "lmsat_loss"]
    document = evaluate("lmsat", tasks, [tmp_path / "tasks"], model_args=arguments)
    noted = [part["tasks"] for part in document["config"]["lmsat"]]
    assert Counter(task for part in noted for task in part) == Counter(tasks)
    assert {task: probe for part in noted for task, probe in part.items()} == {
        "my_loss": "loss",
        "lmsat_head": "head",
        "lmsat_loss": "loss",
    }
    path = tmp_path / "results" / "results_2026-01-01.json"
    path.parent.mkdir()
    path.write_text(json.dumps(document, default=handle_non_serializable))
    results = Results.read(path.parent)
    for task in texts:
        value = document["results"][task]
        assert results.notes(path.name, task)["corpus"]["corpus"] == str(tmp_path / f"{task}.txt")
        arrays = results.arrays(path.name, task, "loss/")
        tokens = arrays["loss/by_document_tokens"].sum()
        assert tokens == value["tokens,none"]
        assert arrays["loss/by_document"].sum() / tokens == pytest.approx(value["loss,none"], rel=1e-12)
        rows = results.table[results.table.task == task]
        assert set(rows.corpus) == {str(tmp_path / f"{task}.txt")}
    values = results.arrays(path.name, "lmsat_head", "head/")["head/singular_values"]
    stable_rank = np.sum(values**2) / values[0] ** 2
    assert stable_rank == pytest.approx(document["results"]["lmsat_head"]["stable_rank,none"], rel=1e-9)


class FactorSettings(Settings):
    factor: int = 1


class FactorProbe(Probe[FactorSettings]):
    name = "factor"
    needs = Need.WEIGHTS
    settings_type = FactorSettings

    def start(self, context):
        self.rows = context.vocab_rows

    def finish(self):
        return Measurement({"product": self.settings.factor * self.rows})


class FactorPlugin:
    @hookimpl
    def lmsat_register_probes(self, registry):
        registry.add(FactorProbe)


@pytest.fixture
def factor_probe(monkeypatch):
    found, plugin = plugins(), FactorPlugin()
    monkeypatch.setattr(found, "_probes", found.probes)
    monkeypatch.setattr(found, "_origins", found.origins)
    found.register(plugin, "factor", "test")
    yield
    found.manager.unregister(plugin)


@pytest.mark.usefixtures("factor_probe")
def test_one_probe_with_two_settings(lm, tmp_path):
    """Tasks that differ in a probe's setting alone do not get each other's answer."""
    for factor in (2, 3):
        text = f"probe: factor\nmetadata:\n  factor: {factor}\n"
        write_probe_task(tmp_path / "tasks", f"times_{factor}", text)
        found = numbers(evaluate(lm, [f"times_{factor}"], [tmp_path / "tasks"]))
        assert found[f"times_{factor}", "product,none"] == factor * VOCAB
    with pytest.raises(LmsatError, match="two tasks ask for the probe 'factor' on one corpus"):
        evaluate(lm, ["times_2", "times_3"], [tmp_path / "tasks"])


def test_one_process_writes_where_each_has_the_whole_text(lm, corpus_file, tmp_path, monkeypatch):
    """As under tensor parallelism, where no process is the first of several that share the text."""
    lm.arrays = str(tmp_path / "arrays")
    monkeypatch.setattr(probe_requests, "_is_tensor_parallel", lambda lm: True)
    for rank, written in ((1, 0), (0, 1)):
        monkeypatch.setattr(Processes, "current", lambda rank=rank: Processes(rank, 2))
        lm.lmsat_probe(requests_of(lm, corpus_file))
        assert len(list((tmp_path / "arrays").glob("*.safetensors"))) == written
        assert lm.lmsat_outcomes[0].provenance["processes"] == 1


def requests_of(lm, corpus_file) -> list[Instance]:
    request = ProbeRequest(
        probe="loss",
        probe_settings=plugins().probe("loss").settings_type(),
        corpus_settings=CorpusSettings(corpus=str(corpus_file), max_tokens=300),
        limit=None,
        metadata={},
    )
    return [Instance(request_type="lmsat_probe", doc={}, arguments=("", request), idx=0, metadata=("t", 0, 1))]
