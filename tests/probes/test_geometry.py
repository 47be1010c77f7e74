"""The geometry of hidden states against LAPACK on all of them, and against spectra whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import transformers
from tiny_models import COMMON, WINDOW, make_model
from window_passes import states_of

from lmsat_plugin import measure
from lmsat_plugin.errors import DivergedError
from lmsat_plugin.probe import StateMoments
from lmsat_plugin.probes.geometry import decay_exponent, isoscore

SIX = ["gpt2", "gpt_neox", "opt_narrow", "llama", "gemma2", "mamba"]
# A norm without a bias leaves a direction without variance, of which a Gram matrix knows 10⁻⁸ of the largest length.
TOLERANCE = {"gpt_neox": 1e-6, "gpt2": 1e-6, "opt_narrow": 1e-6}


def expected(states: np.ndarray) -> dict[str, float]:
    """Return the values by their definitions, from the singular values of all states."""

    def entropy_rank(s: np.ndarray) -> float:
        p = s[s > 1e-12 * s[0]] / s.sum()
        return math.exp(-math.fsum(p * np.log(p)))

    n, d = states.shape
    centred = states - states.mean(0)
    s = np.linalg.svd(centred, compute_uv=False)
    variances = s**2 / n
    # Rudman et al. 2022, Algorithm 1, step by step: principal axes, their variances, and from these the score.
    axes = np.linalg.eigh(np.cov(states.T, bias=True))[1]
    diagonal = np.diag(np.cov((states @ axes).T, bias=True))
    scaled = math.sqrt(d) * diagonal / np.linalg.norm(diagonal)
    delta = np.linalg.norm(scaled - np.ones(d)) / math.sqrt(2 * (d - math.sqrt(d)))
    phi = (d - delta**2 * (d - math.sqrt(d))) ** 2 / d**2
    values = {
        "rankme": entropy_rank(np.linalg.svd(states, compute_uv=False)),
        "effective_rank": entropy_rank(s),
        "participation_ratio": variances.sum() ** 2 / (variances**2).sum(),
        "isoscore": (d * phi - 1) / (d - 1),
        "top_direction_share": variances[0] / variances.sum(),
        "alpha_req": math.nan,
    }
    if d >= 64:
        ranks = np.arange(11, d // 2 + 1)
        values["alpha_req"] = -np.polyfit(np.log(ranks), np.log(variances[10 : d // 2]), 1)[0]
    return values


@pytest.mark.parametrize("architecture", SIX)
def test_every_layer_against_lapack(architecture, tokenizer, documents):
    model = make_model(architecture).double()
    texts = [text for text in documents if text][:6]
    found = measure(
        model, ["geometry", "anisotropy"], corpus=texts, tokenizer=tokenizer, max_length=WINDOW, layers="all",
        batch_size=3,
    )  # fmt: skip
    layers = states_of(model, tokenizer, texts)
    tolerance = TOLERANCE.get(architecture, 1e-9)
    for index, values in enumerate(map(expected, layers)):
        for name, value in values.items():
            array = found.arrays[f"geometry/{name}_by_layer"]
            assert array.shape == (len(layers),)
            assert array[index] == pytest.approx(value, rel=tolerance, nan_ok=True), (index, name)
    metrics = found.measurements["geometry"].metrics
    for name in ("rankme", "participation_ratio", "isoscore", "top_direction_share"):
        assert metrics[name] == found.arrays[f"geometry/{name}_by_layer"][-1]
    last = found.metrics["lmsat_anisotropy/effective_rank_last"]
    assert found.arrays["geometry/effective_rank_by_layer"][-1] == last, "both are of the same sums"


def wide_model() -> transformers.PreTrainedModel:
    """Return a model wide enough for a slope."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{**COMMON, "hidden_size": 80, "num_hidden_layers": 1})
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def test_slope_of_a_wide_layer(tokenizer, documents):
    model, texts = wide_model(), [text for text in documents if text][:6]
    of_float32, of_float64 = (
        measure(each, ["geometry"], corpus=texts, tokenizer=tokenizer) for each in (model, model.double())
    )
    values = expected(states_of(model, tokenizer, texts)[-1])
    for name, value in of_float64.measurements["geometry"].metrics.items():
        assert value == pytest.approx(values[name], rel=1e-9), name
    assert of_float32.metrics == pytest.approx(of_float64.metrics, rel=1e-5)
    assert np.isnan(of_float64.arrays["geometry/rankme_by_layer"][:-1]).all(), "by default the last layer alone"


def test_a_power_law_has_its_exponent():
    assert decay_exponent(np.arange(1.0, 201) ** -1.25) == pytest.approx(1.25, rel=1e-12)
    assert math.isnan(decay_exponent(np.arange(1.0, 64) ** -1.25)), "too narrow"


@pytest.mark.parametrize("used", [1, 3, 40])
def test_isoscore_of_equal_variance_in_some_directions(used):
    """The share of directions beyond the first (Rudman et al. 2022, Sec. 4)."""
    variances = np.where(np.arange(40) < used, 7.0, 0.0)
    assert isoscore(variances) == pytest.approx((used - 1) / 39, abs=1e-12)


def test_moments_are_added_up_once_for_all_probes(tokenizer, documents, monkeypatch):
    rows, add = [], StateMoments.add
    monkeypatch.setattr(StateMoments, "add", lambda self, states: rows.append(len(states)) or add(self, states))
    probes = ["anisotropy", "geometry"]
    found = measure(make_model("llama"), probes, corpus=documents, tokenizer=tokenizer, max_tokens=200, batch_size=1)
    assert sum(rows) == 200
    alone = measure(make_model("llama"), ["geometry"], corpus=documents, tokenizer=tokenizer, max_tokens=200)
    assert alone.metrics == {name: found.metrics[name] for name in alone.metrics}


def test_too_narrow_and_too_short_are_null_with_a_sentence(tokenizer):
    short = measure(wide_model(), ["geometry"], corpus=["a few words of text"], tokenizer=tokenizer)
    assert short.metrics["lmsat_geometry/alpha_req"] is None
    reason = short.provenance["probes"]["geometry"]["reasons"]["alpha_req"]
    assert "directions, and the slope needs 40, half the width: measure more text" in reason
    one = measure(make_model("llama"), ["geometry"], corpus=["word"], tokenizer=tokenizer, max_tokens=1)
    metrics = one.measurements["geometry"].metrics
    assert metrics["rankme"] == pytest.approx(1)
    assert [name for name, value in metrics.items() if value is not None] == ["rankme"]
    assert "do not vary: measure more text" in one.provenance["probes"]["geometry"]["reasons"]["isoscore"]
    narrow = measure(make_model("llama"), ["geometry"], corpus=["a few words of text"], tokenizer=tokenizer)
    assert "width of at least 64" in narrow.provenance["probes"]["geometry"]["reasons"]["alpha_req"]


def test_states_that_are_not_finite_name_their_layer(tokenizer):
    model = make_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[5, 5] = math.nan
    with pytest.raises(DivergedError, match=r"hidden states of layer 2 of 3 are not finite"):
        measure(model, ["geometry"], corpus=["a few words"], tokenizer=tokenizer, layers="all")
