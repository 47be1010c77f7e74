"""Each probe, and downstream tasks, give on the GPU the numbers of the CPU, in each type."""

from __future__ import annotations

import math

import pytest
import torch
from evaluation import rolling_requests, simple_evaluate
from lm_eval.tasks import TaskManager
from quiz import write_quiz
from tiny_models import make_model

from lmsat_plugin import measure
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.model.fixed import model_digest

CPU = torch.device("cpu")
TYPES = (torch.float32, torch.bfloat16, torch.float16)
PROBES = (
    "loss",
    "anisotropy",
    "head",
    "rank_head",
    "gradient_bottleneck",
    "gradient_noise",
    "ngram",
    "geometry",
    "activations",
    "attention",
    "ngram_gap",
)
SETTINGS = {"max_tokens": 1000, "batch_size": 4}
OF_PROBES = {"ranks": [4, 16], "noise_tokens": 512, "noise_sequence": 32}
# The relative difference allowed: in float32 by metric, from what its definition magnifies; of half types, in which
# the model itself rounds, of losses and of mean cosines alone.
TOLERANCE = {
    "lmsat_loss": 1e-5,
    "lmsat_anisotropy": 1e-5,
    "lmsat_head": 1e-9,
    "lmsat_rank_head": 1e-4,
    "lmsat_gradient_bottleneck": 1e-4,
    "lmsat_gradient_noise": 1e-3,
    "lmsat_ngram": 1e-9,
    "lmsat_geometry": 1e-5,
    "lmsat_activations": 1e-3,
    "lmsat_attention": 1e-3,
    "lmsat_ngram_gap": 1e-4,
}
ROUNDED = {torch.bfloat16: 3e-2, torch.float16: 5e-3}


def tolerance(name: str, dtype: torch.dtype) -> float:
    task, _, metric = name.partition("/")
    if dtype == torch.float32:
        # What is measured of noise, and the spread of few documents, is a difference of numbers that are alike.
        return 20 * TOLERANCE[task] if "stderr" in metric else TOLERANCE[task]
    exact = task in ("lmsat_head", "lmsat_ngram")
    return TOLERANCE[task] if exact else ROUNDED[dtype] * (4 if "stderr" in metric else 1)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", ["gpt_neox", "llama", "gemma2", "opt_narrow", "mamba"])
def test_probes(name, dtype, device, documents, tokenizer):
    # Of half types flat distributions, in which rounding does not decide which token comes first.
    model = make_model(name, spread=5.0 if dtype == torch.float32 else 1.0).to(dtype)
    probes = list(PROBES if dtype == torch.float32 else PROBES[:4])
    settings = OF_PROBES if dtype == torch.float32 else {"ranks": OF_PROBES["ranks"]}
    there, here = (
        measure(model.to(where), probes, corpus=documents, tokenizer=tokenizer, **SETTINGS, **settings)
        for where in (device, CPU)
    )
    assert there.provenance["dtype"] == str(dtype).removeprefix("torch.")
    found, expected = there.metrics, here.metrics
    assert found.keys() == expected.keys()
    for metric, value in expected.items():
        assert found[metric] == pytest.approx(value, rel=tolerance(metric, dtype), abs=1e-6), metric


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "gemma2", "opt_narrow"])
def test_changed_weights(name, device, documents, tokenizer):
    """The noise is the same, and a rise differs by no more than the losses do whose difference it is."""
    model = make_model(name, spread=5.0)
    settings = {"changed_tokens": 500, "noise_draws": 2, "sharpness_tokens": 512, **SETTINGS}
    probes = ["loss", "weights", "quantization", "weight_noise", "sharpness"]
    there, here = (
        measure(model.to(where), probes, corpus=documents, tokenizer=tokenizer, **settings).metrics
        for where in (device, CPU)
    )
    assert there.keys() == here.keys()
    loss = here["lmsat_loss/loss"]
    for metric, value in here.items():
        task = metric.partition("/")[0]
        if task in ("lmsat-quantization", "lmsat-weight-noise"):
            assert there[metric] == pytest.approx(value, abs=(20 if "stderr" in metric else 2) * 1e-5 * loss), metric
        elif value is None:
            assert there[metric] is None, metric
        elif task != "lmsat_loss":
            # Steps follow from losses and gradients, and the ends of the bracket from the steps.
            assert there[metric] == pytest.approx(value, rel=1e-2 if task == "lmsat-sharpness" else 1e-8), metric


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_changed_weights_come_back(dtype, device, documents, tokenizer, memory):
    """Bit for bit on the device, and no copy of them stays there."""
    model = make_model("llama").to(dtype).to(device)
    settings = {"changed_tokens": 200, "noise_draws": 1, "sharpness_tokens": 128, **SETTINGS}
    before, held = model_digest(model), []
    for _ in range(2):
        # The first run leaves what libraries of the GPU keep for themselves.
        measure(model, ["quantization", "weight_noise", "sharpness"], corpus=documents, tokenizer=tokenizer, **settings)
        held.append(memory())
        assert model_digest(model) == before
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert held[1] <= held[0] + 2**16


@pytest.mark.parametrize("name", ["gpt_neox", "llama"])
def test_beside_another_checkpoint(name, device, documents, tokenizer, tmp_path):
    make_model(name, 1).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, settings = make_model(name), {**SETTINGS, "reference": str(tmp_path), "similarity_tokens": 300}
    there, here = (
        measure(model.to(where), ["similarity", "weights"], corpus=documents, tokenizer=tokenizer, **settings)
        for where in (device, CPU)
    )
    assert there.metrics.keys() == here.metrics.keys()
    for metric, value in here.metrics.items():
        expected = value if value is None else pytest.approx(value, rel=1e-4, abs=1e-6)
        assert there.metrics[metric] == expected, metric


def test_trained_heads(device, documents, tokenizer):
    """They end where those of the CPU end, though neither device adds in the other's order, and twice at the same."""
    settings = {"batch_size": 4, "ranks": [4, 48], "max_tokens": 500, "train_tokens": 1500, "batch_tokens": 250}

    def train(where: torch.device) -> dict[str, float]:
        model = make_model("gpt_neox").to(where)
        return measure(model, ["rank_head"], corpus=documents, tokenizer=tokenizer, **settings).metrics

    expected, found, again = train(CPU), train(device), train(device)
    for name in ("loss_rank_4", "loss_rank_48"):
        assert found[f"lmsat_rank_head/{name}"] == pytest.approx(expected[f"lmsat_rank_head/{name}"], rel=1e-3)
    assert found == pytest.approx(again, rel=1e-12), "trainings repeat"


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", ["gpt_neox", "llama", "mistral"])
def test_downstream_tasks(name, dtype, device, saved, tmp_path):
    """Log-likelihoods, and the choices made of them where these are apart by more than the type rounds."""
    folder = saved(make_model(name, spread=1.0), name, dtype)
    quiz = write_quiz(tmp_path / "quiz")
    kind = str(dtype).removeprefix("torch.")

    def answers(where: torch.device) -> tuple[list[list[float]], float]:
        lm = SaturationLM(folder, device=where.type, dtype=kind, batch_size=4)
        assert (lm.model.dtype, lm.model.device.type) == (dtype, where.type)
        manager = TaskManager(include_defaults=False, include_path=[quiz])
        results = simple_evaluate(
            model=lm, tasks=["quiz"], task_manager=manager, num_fewshot=2, log_samples=True, bootstrap_iters=0
        )
        samples = sorted(results["samples"]["quiz"], key=lambda sample: sample["doc_id"])
        return [[answer[0] for answer in sample["filtered_resps"]] for sample in samples], results["results"]["quiz"][
            "acc,none"
        ]

    (there, found), (here, expected) = answers(device), answers(CPU)
    rounding = 1e-5 if dtype == torch.float32 else ROUNDED[dtype]
    for ours, theirs in zip(there, here, strict=True):
        assert ours == pytest.approx(theirs, rel=rounding)
    if dtype == torch.float32:
        assert found == expected


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_rolling_log_likelihoods(dtype, device, documents, saved):

    folder, kind = saved(make_model("llama", spread=1.0), "llama", dtype), str(dtype).removeprefix("torch.")
    there, here = (
        SaturationLM(folder, device=where.type, dtype=kind, batch_size=4).loglikelihood_rolling(
            rolling_requests([text for text in documents if text]), disable_tqdm=True
        )
        for where in (device, CPU)
    )
    assert all(math.isfinite(value) for value in there)
    assert there == pytest.approx(here, rel=1e-5 if dtype == torch.float32 else ROUNDED[dtype])
