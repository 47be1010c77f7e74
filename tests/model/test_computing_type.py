"""Half types on a processor without units for them: computed with in float32, in every way of measuring, and said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from evaluation import evaluate, numbers
from model_configs import mixtures
from tiny_models import make_model

from lmsat_plugin import measure
from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.model import computing_type as types
from lmsat_plugin.model.loading import load_head

CPU, GPU = torch.device("cpu"), torch.device("cuda")
PROBES = ["loss", "anisotropy", "head"]


@pytest.fixture(autouse=True)
def without_units(monkeypatch):
    """Have a processor without units for any half type."""
    monkeypatch.setattr(types, "has_units", lambda dtype: False)


@pytest.fixture
def halves(tokenizer, tmp_path):
    """Return a function that saves a checkpoint in a type, and returns its folder."""

    def save(name: str, dtype: torch.dtype = torch.bfloat16, seed: int = 0):
        make_model("gpt_neox", seed).to(dtype).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return save


def provenance_types(provenance: dict) -> tuple:
    return provenance["stored_dtype"], provenance["dtype"]


def test_which_type_is_computed_with():
    half = torch.bfloat16
    assert types.computing_type(half, CPU, 100, free=300) == torch.float32
    assert types.computing_type(half, CPU, 100, free=299) == half
    assert types.computing_type(half, GPU, 100, free=300) == half
    assert types.computing_type(torch.float64, CPU, 100, free=300) == torch.float64


@pytest.mark.parametrize(
    ("names", "bfloat16", "float16"),
    [
        ({"sse2", "avx2"}, False, False),
        ({"sse2", "avx2", "avx512_f", "avx512_bf16"}, True, False),
        ({"sse2", "avx2", "amx_bf16", "amx_fp16"}, True, True),
    ],
)
def test_a_processor_names_its_units(monkeypatch, names, bfloat16, float16):
    monkeypatch.undo()
    monkeypatch.setattr(types, "_names_of_units", lambda: names)
    found = [types.has_units.__wrapped__(dtype) for dtype in (torch.bfloat16, torch.float16)]
    assert found == [bfloat16, float16]


def test_another_processor_is_tried(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(types, "_names_of_units", lambda: {"asimd"})
    seconds = {torch.float32: 2.0, torch.bfloat16: 1.0, torch.float16: 9.0}
    monkeypatch.setattr(types, "_seconds_of_product", seconds.__getitem__)
    assert [types.has_units.__wrapped__(dtype) for dtype in (torch.bfloat16, torch.float16)] == [True, False]
    monkeypatch.undo()
    assert 0 < types._seconds_of_product(torch.bfloat16) < 10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_way_of_measuring_computes_in_float32(halves, dtype, corpus_file):
    """The numbers are those of the same weights that were converted beforehand, to the bit."""
    folder, name = halves("step1", dtype), str(dtype).removeprefix("torch.")
    corpus = {"corpus": str(corpus_file), "max_tokens": 500}
    widened = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = measure(widened, PROBES, tokenizer=folder, batch_size=2, **corpus).metrics

    outcome = measure(folder, PROBES, device="cpu", batch_size=2, **corpus)
    assert provenance_types(outcome.provenance) == (name, "float32")
    assert outcome.metrics == expected

    results = evaluate("lmsat", model_args={"pretrained": folder, "device": "cpu"}, batch_size=2, **corpus)
    assert provenance_types(results["config"]["lmsat"]) == (name, "float32")
    assert (results["config"]["model_stored_dtype"], str(results["config"]["model_dtype"])) == (name, "torch.float32")
    found = {f"{task}/{key.removesuffix(',none')}": value for (task, key), value in numbers(results).items()}
    assert found == {key: expected[key] for key in found}

    head = load_head(folder_path(folder))
    assert (types.stored_type(head), head.dtype, head.get_output_embeddings().weight.dtype) == (
        name,
        torch.float32,
        torch.float32,
    )


def folder_path(folder: str) -> Path:
    return Path(folder)


def test_a_type_that_is_asked_for_is_obeyed(halves, corpus_file, monkeypatch):
    folder = halves("step1")
    settings = {"corpus": str(corpus_file), "max_tokens": 200, "device": "cpu"}
    found = measure(folder, ["loss"], dtype="bfloat16", **settings).provenance
    assert provenance_types(found) == ("bfloat16", "bfloat16")
    found = measure(folder, ["loss"], dtype="float32", **settings).provenance
    assert provenance_types(found) == ("bfloat16", "float32")
    for arguments in ({"dtype": "bfloat16"}, {"mixed_precision_dtype": "bfloat16"}):
        assert SaturationLM(folder, device="cpu", **arguments).model.dtype == torch.bfloat16
    assert load_head(folder_path(folder), dtype=torch.bfloat16).dtype == torch.bfloat16
    # A loaded model is measured as it is, and nobody knows what it was stored as.
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    found = measure(loaded, ["loss"], tokenizer=folder, corpus=str(corpus_file), max_tokens=200).provenance
    assert provenance_types(found) == (None, "bfloat16")


def test_scarce_memory_keeps_the_stored_type(halves, monkeypatch, caplog):
    folder = halves("step1")
    monkeypatch.setattr(types, "free_memory", lambda device: 1000)
    assert SaturationLM(folder, device="cpu").model.dtype == torch.bfloat16
    assert "Memory does not suffice to compute in float32" in caplog.text


def test_a_series_computes_in_one_type(halves):
    """Its checkpoints' weights go into the model of the first, and what is said of their files is their own."""
    folders = [halves("step1"), halves("step2", seed=1), halves("step3", torch.float32, seed=2)]
    evaluator = CheckpointEvaluator({}, {"device": "cpu", "batch_size": 1})
    models, stored = [], []
    for folder in folders:
        evaluator.load(folder_path(folder), name="run", revision=folder)
        models.append(evaluator.lm)
        stored.append(types.stored_type(evaluator.lm.model))
        expected = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for name, weight in evaluator.lm.model.state_dict().items():
            assert torch.equal(weight, expected.state_dict()[name])
    assert stored == ["bfloat16", "bfloat16", "float32"]
    assert models[0] is models[1]
    # A configuration that states another type is another one.
    assert models[2] is not models[1]


def test_experts_in_float64(tokenizer, tmp_path):
    """PyTorch's grouped product of experts takes no float64."""
    transformers.MixtralForCausalLM(mixtures()["mixtral"]).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    double, single = (
        measure(tmp_path, "loss", corpus=["abc " * 30], max_tokens=60, dtype=dtype).metrics["lmsat_loss/loss"]
        for dtype in ("float64", "float32")
    )
    assert double == pytest.approx(single, rel=1e-6)
