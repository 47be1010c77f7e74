"""The tasks inside lm-eval: one shared pass, lm-eval's own result layout, the same numbers by every road."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
from evaluation import TASKS, evaluate, numbers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import handle_non_serializable
from safetensors.numpy import load_file
from tiny_models import VOCAB, WINDOW

from lmsat_plugin import Measurement, Need, Probe, Settings, hookimpl, measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.plugins import plugins

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model_args(checkpoint):
    return {"pretrained": str(checkpoint("gpt_neox")), "dtype": "float32", "device": "cpu"}


@pytest.fixture
def lm(model_args):
    return SaturationLM(**model_args, batch_size=2)


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
    assert set(check) == {(1, 16)}, "the check of the parts looks at the first tokens alone"
    shapes.clear()
    evaluate(lm, ["lmsat_loss"], **corpus)
    assert shapes == check + batches
    shapes.clear()
    evaluate(lm, ["lmsat_head"], **corpus)
    assert shapes == []


def test_results_have_the_layout_of_lm_eval(lm, corpus_file, documents):
    results = evaluate(lm, corpus=str(corpus_file), max_tokens=None)
    found = numbers(results)
    expected = {
        "lmsat_loss": [
            "loss",
            "perplexity",
            "bits_per_byte",
            "unigram_loss",
            "unigram_normalised_perplexity",
            "tokens",
            "bytes",
        ],
        "lmsat_anisotropy": ["anisotropy_last", "anisotropy_mean", "anisotropy_max", "effective_rank_last"],
        "lmsat_head": [
            *("singular_entropy", "singular_entropy_linear", "effective_rank", "stable_rank"),
            *("condition_number", "top_singular_ratio"),
        ],
    }
    for task, names in expected.items():
        for name in names:
            assert math.isfinite(found[task, f"{name},none"])
    error = found["lmsat_loss", "loss_stderr,none"]
    assert isinstance(error, float)
    assert 0 < error < found["lmsat_loss", "loss,none"]
    assert found["lmsat_loss", "bytes,none"] == len("".join(documents).encode())
    assert results["higher_is_better"]["lmsat_loss"]["loss"] is False
    assert results["n-shot"] == dict.fromkeys(TASKS, 0)
    assert results["n-samples"]["lmsat_loss"]["original"] == len(documents)
    assert set(results["versions"]) == set(TASKS)
    found = results["config"]["lmsat"]
    assert found["corpus"]["tokens"] == results["results"]["lmsat_loss"]["tokens,none"]
    assert found["corpus"]["corpus"] == str(corpus_file)
    assert found["corpus"]["documents_empty"] == documents.count("")
    assert found["corpus"]["window"] == WINDOW
    assert found["vocab_rows"] == VOCAB
    assert found["dtype"] == "float32"
    assert found["tied_head"] is False
    assert set(found["probes"]) == {"loss", "anisotropy", "head"}
    # What `--output_path` writes.
    text = json.dumps(results, default=handle_non_serializable)
    assert json.loads(text)["config"]["lmsat"] == found


def test_evaluating_twice_gives_the_same(lm, corpus_file):
    first, second = (evaluate(lm, corpus=str(corpus_file)) for _ in range(2))
    assert numbers(first) == numbers(second)
    assert first["config"]["lmsat"] == second["config"]["lmsat"]


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
    arrays, found = load_file(path), numbers(results)
    assert set(arrays) == {
        *("loss/by_position", "loss/by_position_tokens"),
        *("loss/by_document", "loss/by_document_tokens", "loss/by_document_bytes"),
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
        evaluate(
            "lmsat", ["lmsat_loss"], model_args=arguments, corpus=str(corpus_file), max_tokens=max_tokens
        )
    totals = {load_file(path)["loss/by_position_tokens"].sum() for path in (tmp_path / "arrays").iterdir()}
    assert totals == {100, 200}


def test_numbers_of_hf_and_of_python_are_the_same(model_args, corpus_file):
    metadata = {"corpus": str(corpus_file), "max_tokens": 1500, "seed": 3}
    results = evaluate("lmsat", model_args=model_args, **metadata)
    hf = evaluate("hf", model_args=model_args, **metadata)
    assert numbers(hf) == pytest.approx(numbers(results), rel=1e-12)
    assert hf["config"]["lmsat"] == results["config"]["lmsat"]
    outcome = measure(model_args["pretrained"], dtype="float32", device="cpu", **metadata)
    # Other batches: rounding in float32.
    for (task, key), value in numbers(results).items():
        name = f"{task.removeprefix('lmsat_')}/{key.removesuffix(',none')}"
        assert outcome.metrics[name] == pytest.approx(value, rel=1e-5)
    assert outcome.provenance["corpus"] == results["config"]["lmsat"]["corpus"]


def test_measure_of_a_loaded_model(model_args, lm, documents, corpus_file):
    lm.model.train()
    outcome = measure(lm.model, corpus=documents, tokenizer=lm.tokenizer, batch_size=2, device="cpu")
    assert lm.model.training, "the mode is given back"
    lm.model.eval()
    for (task, key), value in numbers(evaluate(lm, corpus=str(corpus_file))).items():
        name = f"{task.removeprefix('lmsat_')}/{key.removesuffix(',none')}"
        assert outcome.metrics[name] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("task", TASKS)
def test_another_backend_is_refused_in_one_sentence(task, corpus_file):
    with pytest.raises(LmsatError, match=rf"^the model type DummyLM .*{task} needs: run with --model lmsat$"):
        evaluate("dummy", [task], corpus=str(corpus_file))


@pytest.mark.parametrize("model", ["lmsat", "hf"])
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("max_token", "unknown setting 'max_token': did you mean max_tokens?"),
        ("corpsu", "unknown setting 'corpsu': did you mean corpus?"),
    ],
)
def test_misspelt_metadata_is_named(model, key, message, model_args):
    with pytest.raises(LmsatError) as caught:
        evaluate(model, ["lmsat_head"], model_args=model_args, **{key: 5})
    assert str(caught.value) == message


def test_metadata_that_nobody_knows_is_named(model_args):
    with pytest.raises(LmsatError, match=r"unknown setting 'temperature': known are .*corpus.*max_tokens"):
        evaluate("lmsat", ["lmsat_head"], model_args=model_args, temperature=1)


def write_task(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    start = f"task: {name}\nclass: !function lmsat_plugin.harness.task.ProbeTask\n"
    (folder / f"{name}.yaml").write_text(start + text)
    return folder


def test_unknown_probe_in_a_task(lm, tmp_path):
    folder = write_task(tmp_path / "tasks", "mine", "probe: lsos\n")
    with pytest.raises(LmsatError, match=r"no probe is named 'lsos' \(known: loss, anisotropy, head"):
        evaluate(lm, ["mine"], [folder])


def test_task_without_a_probe(lm, tmp_path):
    with pytest.raises(LmsatError, match="the task mine names no probe: add `probe: NAME`"):
        evaluate(lm, ["mine"], [write_task(tmp_path / "tasks", "mine", "")])


def test_tasks_on_different_corpora_are_passes_of_their_own(lm, tmp_path):
    for name, text in {"one": "first text", "two": "the second"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
        write_task(tmp_path / "tasks", name, f"probe: loss\nmetadata:\n  corpus: {tmp_path / name}.txt\n")
    together = numbers(evaluate(lm, ["one", "two"], [tmp_path / "tasks"]))
    for name, text in {"one": "first text", "two": "the second"}.items():
        alone = evaluate(lm, [name], [tmp_path / "tasks"])
        assert alone["config"]["lmsat"]["corpus"]["corpus"] == str(tmp_path / f"{name}.txt")
        assert together[name, "bytes,none"] == len(text)
        assert together[name, "loss,none"] == numbers(alone)[name, "loss,none"]


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
    found = plugins()
    for name in ("probes", "origins"):
        monkeypatch.setattr(found, name, dict(getattr(found, name)))
    plugin = FactorPlugin()
    found.register(plugin, "factor", "test")
    yield
    found.manager.unregister(plugin)


@pytest.mark.usefixtures("factor_probe")
def test_one_probe_with_two_settings(lm, tmp_path):
    """Tasks that differ in a probe's setting alone do not get each other's answer."""
    for factor in (2, 3):
        text = f"probe: factor\nmetadata:\n  factor: {factor}\n"
        write_task(tmp_path / "tasks", f"times_{factor}", text)
        found = numbers(evaluate(lm, [f"times_{factor}"], [tmp_path / "tasks"]))
        assert found[f"times_{factor}", "product,none"] == factor * VOCAB
    with pytest.raises(LmsatError, match="two tasks ask for the probe 'factor' on one corpus"):
        evaluate(lm, ["times_2", "times_3"], [tmp_path / "tasks"])


def test_limit_counts_documents(lm, tmp_path):
    texts = [f"document number {index} {'!' * index}" for index in range(20)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    for limit, documents in ((3, 3), (0.25, 5), (100, 20)):
        results = evaluate(lm, corpus=str(tmp_path / "corpus.jsonl"), limit=limit)
        corpus = results["config"]["lmsat"]["corpus"]
        assert corpus["documents"] == documents
        whole = numbers(results)["lmsat_loss", "bytes,none"]
        assert 10 * documents < whole < 40 * documents


CHOICES = [
    ("The sky is", " blue"),
    ("The sky is", " a kind of fish"),
    ("", "no context"),
    ("long " * 100, "context, cut on the left"),
]


def test_loglikelihood_of_choices_is_that_of_hf(model_args, documents):
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=arguments, idx=index)
        for index, arguments in enumerate(CHOICES)
    ]
    ours, theirs = (kind(**model_args, batch_size=2).loglikelihood(requests) for kind in (SaturationLM, HFLM))
    assert ours == theirs
