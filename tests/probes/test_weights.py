"""Statistics of all weight matrices against NumPy on each, and the tail's exponent against samples of a power law."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import transformers
from tiny_models import GROUPED, make_model

from lmsat_plugin import measure
from lmsat_plugin.errors import DivergedError, LmsatError
from lmsat_plugin.model.matrices import matrices_of
from lmsat_plugin.model.matrix_changes import SAMPLE, cosine, sample_of
from lmsat_plugin.model.matrix_statistics import matrix_statistics, power_law_tail

SIX = ["gpt2", "gpt_neox", "opt_narrow", "llama", "gemma2", "mamba"]


def expected(weight: np.ndarray) -> dict[str, float]:
    s = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    p = s / s.sum()
    p = p[p > 0]
    entries = np.sort(np.abs(weight).ravel())
    return {
        "frobenius_norm": np.linalg.norm(weight.astype(np.float64)),
        "spectral_norm": s[0],
        "stable_rank": (s**2).sum() / s[0] ** 2,
        "effective_rank": math.exp(-(p * np.log(p)).sum()),
        "top10_share": s[:10].sum() / s.sum(),
        "outlier_ratio": entries[-1] / entries[math.ceil(0.99 * len(entries)) - 1],
    }


@pytest.mark.parametrize("architecture", SIX)
def test_every_matrix_against_numpy(architecture, tokenizer):
    model = make_model(architecture)
    # All matrices but stacked ones: every parameter of two dimensions that is a module's weight, each once.
    weights = {
        name.removesuffix(".weight"): p for name, p in model.named_parameters() if p.ndim == 2 and "weight" in name
    }
    found = {matrix.name: matrix for matrix in matrices_of(model)}
    assert found.keys() == weights.keys()
    values = {name: expected(weight.detach().numpy()) for name, weight in weights.items()}
    outcome = measure(model, ["weights"], tokenizer=tokenizer)
    metrics = {name.removeprefix("lmsat-weights/"): value for name, value in outcome.metrics.items()}
    assert metrics["spectral_norm_max"] == pytest.approx(max(v["spectral_norm"] for v in values.values()), rel=1e-10)
    assert metrics["outlier_ratio_max"] == pytest.approx(max(v["outlier_ratio"] for v in values.values()), rel=1e-6)
    for name in ("stable_rank", "top10_share"):
        assert metrics[f"{name}_mean"] == pytest.approx(np.mean([v[name] for v in values.values()]), rel=1e-10)
    kinds = outcome.provenance["probes"]["weights"]["kinds"]
    for name, own in values.items():
        matrix = found[name]
        place = kinds.index(matrix.kind), matrix.layer or 0
        for quantity, value in own.items():
            array = outcome.arrays[f"weights/{quantity}"]
            assert array.shape == (len(kinds), 3)
            assert array[place] == pytest.approx(value, rel=1e-6 if quantity == "outlier_ratio" else 1e-9), quantity


@pytest.mark.parametrize("architecture", SIX)
def test_changes_against_numpy(architecture, tokenizer, tmp_path):
    models = [make_model(architecture, seed) for seed in (0, 1)]
    models[1].save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    outcome = measure(models[0], "weights", tokenizer=tokenizer, reference=str(tmp_path))
    metrics, arrays = outcome.measurements["weights"].metrics, outcome.measurements["weights"].arrays
    before = {matrix.name: matrix.weight_OI.detach().double().numpy() for matrix in matrices_of(models[1])}
    sums, ranks = np.zeros(2), []
    kinds = outcome.provenance["probes"]["weights"]["kinds"]
    for matrix in matrices_of(models[0]):
        old = before[matrix.name]
        change = matrix.weight_OI.detach().double().numpy() - old
        s = np.linalg.svd(change, compute_uv=False)
        place = kinds.index(matrix.kind), matrix.layer or 0
        assert arrays["relative_change"][place] == pytest.approx(
            np.linalg.norm(change) / np.linalg.norm(old), rel=1e-10
        )
        ranks.append((s**2).sum() / s[0] ** 2)
        assert arrays["change_stable_rank"][place] == pytest.approx(ranks[-1], rel=1e-9)
        p = s / s.sum()
        assert arrays["change_effective_rank"][place] == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-9)
        sums += (change**2).sum(), (old**2).sum()
    assert metrics["relative_change"] == pytest.approx(math.sqrt(sums[0] / sums[1]), rel=1e-10)
    assert metrics["change_stable_rank_mean"] == pytest.approx(np.mean(ranks), rel=1e-9)
    assert metrics["change_cosine"] is None, "the reference has none before it"


def test_why_metrics_are_null_is_said(checkpoint, caplog):
    measure(str(checkpoint("llama")), "weights", device="cpu")
    [said] = [record.getMessage() for record in caplog.records if "has no" in record.getMessage()]
    assert "has no relative_change, change_stable_rank_mean, change_cosine: a checkpoint that is measured alone" in said


def test_a_checkpoint_that_is_its_own_reference_has_not_changed(checkpoint):
    folder = str(checkpoint("llama"))
    outcome = measure(folder, "weights", reference=folder, device="cpu")
    metrics = outcome.measurements["weights"].metrics
    assert metrics["relative_change"] == 0
    assert metrics["change_stable_rank_mean"] is None
    assert outcome.provenance["probes"]["weights"]["reasons"]["change_stable_rank_mean"] == "no matrix has changed"


def test_kinds_layers_and_what_is_a_layer():
    matrices = matrices_of(make_model("gpt2"))
    by_name = {matrix.name: matrix for matrix in matrices}
    attention = by_name["transformer.h.1.attn.c_attn"]
    assert (attention.kind, attention.layer, attention.is_linear) == ("attn.c_attn", 1, True)
    # Outputs first, though GPT-2 stores them last.
    assert attention.weight_OI.shape == (144, 48)
    assert (by_name["transformer.wte"].kind, by_name["transformer.wte"].layer) == ("wte", None)
    assert not by_name["transformer.wte"].is_linear
    assert not by_name["transformer.wpe"].is_linear


def test_experts_count_each_by_itself(tokenizer):
    torch.manual_seed(0)
    config = transformers.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2)
    model = transformers.AutoModelForCausalLM.from_config(config)
    experts = [matrix for matrix in matrices_of(model) if "experts" in matrix.kind and matrix.layer == 1]
    assert len(experts) == 8
    assert {tuple(matrix.weight_OI.shape) for matrix in experts} == {(192, 48), (48, 96)}
    outcome = measure(model, ["weights"], tokenizer=tokenizer)
    kinds = outcome.provenance["probes"]["weights"]["kinds"]
    kind = experts[0].kind
    norms = [float(matrix.weight_OI.norm()) for matrix in experts if matrix.kind == kind]
    found = outcome.arrays["weights/frobenius_norm"][kinds.index(kind), 1]
    assert found == pytest.approx(np.mean(norms), rel=1e-6)


@pytest.mark.parametrize("alpha", [1.8, 2.5, 4.0])
def test_exponent_of_a_power_law(alpha):
    """Of 20,000 samples of p(x) ∝ x^−α above 1, below which other values lie."""
    generator = np.random.default_rng(0)
    tail = (1 - generator.random(20_000)) ** (-1 / (alpha - 1))
    found, distance = power_law_tail(np.concatenate([tail[:4000], generator.random(500)]))
    assert found == pytest.approx(alpha, rel=0.05)
    assert distance < 0.03


def test_exponent_is_that_of_weightwatcher():
    powerlaw = pytest.importorskip("weightwatcher.WW_powerlaw")
    generator = np.random.default_rng(1)
    eigenvalues = np.linalg.svd(generator.standard_t(3, (96, 200)), compute_uv=False) ** 2
    fit = powerlaw.WWFit(eigenvalues)
    assert power_law_tail(eigenvalues) == pytest.approx((fit.alpha, fit.D), rel=1e-9)


def test_few_eigenvalues_have_no_tail():
    statistics = matrix_statistics(torch.randn(8, 30))
    assert math.isnan(statistics.alpha)
    assert statistics.top10_share == 1


def test_weights_that_are_not_finite_are_named(tokenizer):
    model = make_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = torch.nan
    with pytest.raises(DivergedError, match=r"model.layers.1.mlp.up_proj are not finite"):
        measure(model, ["weights"], tokenizer=tokenizer)


def test_a_quantised_model_is_refused(tokenizer):
    model = make_model("llama")
    model.config.quantization_config = {"bits": 4}
    with pytest.raises(LmsatError, match="is quantised"):
        measure(model, ["weights"], tokenizer=tokenizer)


def test_entries_of_all_columns_are_sampled():
    """Changes of one common direction of outputs, and independent ones of inputs, have a cosine near 0."""
    generator = torch.Generator().manual_seed(0)
    common_O1 = torch.randn(2048, 1, generator=generator)
    for inputs in (2048, 3072):
        first, second = (common_O1 @ torch.randn(1, inputs, generator=generator) for _ in range(2))
        whole = cosine([first.flatten()], [second.flatten()])
        assert 60_000 < len(sample_of(first)) <= SAMPLE
        assert cosine([sample_of(first)], [sample_of(second)]) == pytest.approx(whole, abs=3 * 0.004)
