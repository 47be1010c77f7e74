"""Similarity of two models against kernel matrices, and SciPy's subspaces and distances, on transformers' states."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.spatial.distance import jensenshannon
from tiny_models import VOCAB, WINDOW, make_model

from lmsat_plugin import measure
from lmsat_plugin.probes.similarity import probe
from lmsat_plugin.probes.similarity.alignment import DIRECTIONS, align, jensen_shannon

SIX = ["gpt2", "gpt_neox", "opt_narrow", "llama", "gemma2", "mamba"]


def unbiased_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al. 2012, Eq. 5, on kernel matrices."""
    n = len(k)
    k, m, one = k - np.diag(np.diag(k)), m - np.diag(np.diag(m)), np.ones(n)
    products = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (products - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


def kernel_cka(x: np.ndarray, y: np.ndarray) -> float:
    k, m = x @ x.T, y @ y.T
    return unbiased_hsic(k, m) / math.sqrt(unbiased_hsic(k, k) * unbiased_hsic(m, m))


def mean_angle(x: np.ndarray, y: np.ndarray) -> float:
    tops = [np.linalg.svd(each - each.mean(0), full_matrices=False)[0][:, :DIRECTIONS] for each in (x, y)]
    return float(np.degrees(scipy.linalg.subspace_angles(*tops)).mean())


@pytest.mark.parametrize(("n", "d", "e"), [(50, 8, 8), (40, 30, 12), (30, 64, 64), (16, 3, 20)])
def test_alignment_against_kernel_matrices(n, d, e):
    draws = np.random.default_rng(n)
    x = draws.normal(size=(n, d)) + 5
    y = x[:, :1] * draws.normal(size=e) + draws.normal(size=(n, e))
    found = align(torch.from_numpy(x), torch.from_numpy(y))
    assert found.cka == pytest.approx(kernel_cka(x, y), rel=1e-9)
    if min(d, e) >= DIRECTIONS and n > max(d, e):
        assert found.principal_angle == pytest.approx(mean_angle(x, y), rel=1e-8)


def test_alignment_of_rotations_of_noise_and_of_nothing():
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(400, 32, dtype=torch.float64, generator=draws)
    rotation = torch.linalg.qr(torch.randn(32, 32, dtype=torch.float64, generator=draws))[0]
    same = align(x, 3 * x @ rotation + 7)
    assert same.cka == pytest.approx(1, abs=1e-12)
    # The debiased estimate of independent states is 0 on average; the biased one would be about 32/400.
    found = [align(x, torch.randn(400, 32, dtype=torch.float64, generator=draws)).cka for _ in range(20)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(20)
    flat = align(x, torch.ones(400, 32))
    assert math.isnan(flat.cka)
    assert math.isnan(flat.principal_angle)


def test_jensen_shannon_against_scipy():
    draws = np.random.default_rng(1)
    p, q = draws.dirichlet(np.full(40, 0.1), size=(2, 200))
    p[0], q[0] = np.eye(40)[:2]
    with np.errstate(divide="ignore"):
        logs = [torch.from_numpy(np.log(each)) for each in (p, q)]
    expected = [jensenshannon(a, b, base=2) for a, b in zip(p, q, strict=True)]
    assert expected[0] == 1
    assert jensen_shannon(*logs) == pytest.approx(np.mean(expected), rel=1e-7)
    assert jensen_shannon(logs[0], logs[0]) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("architecture", SIX)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_probe_against_transformers(architecture, dtype, tokenizer, documents, tmp_path, monkeypatch):
    """States and logits are those of whole sequences, one at a time, from transformers' own outputs."""
    drawn = []
    real = probe.draw_sequences
    monkeypatch.setattr(probe, "draw_sequences", lambda *arguments: drawn.append(real(*arguments)) or drawn[-1])
    models = [make_model(architecture, seed).to(dtype) for seed in (0, 1)]
    # As if trained from one start: near each other.
    with torch.no_grad():
        for own, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
            other.copy_(own + 0.3 * other)
    models[1].save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    outcome = measure(
        models[0],
        "similarity",
        corpus=documents,
        tokenizer=tokenizer,
        max_length=WINDOW,
        reference=str(tmp_path),
        similarity_tokens=300,
        dtype=dtype,
    )
    values = outcome.measurements["similarity"].metrics
    states, tops, distributions = [], [], []
    for model in models:
        layers, logits = [], []
        for window in drawn[0]:
            tokens = torch.from_numpy(window.tokens).long()
            with torch.no_grad():
                output = model(input_ids=tokens[None, :-1], output_hidden_states=True)
            layers.append([layer[0, -window.scored :].double().numpy() for layer in output.hidden_states])
            logits.append(output.logits[0, -window.scored :, :VOCAB].double())
        states.append([np.concatenate(each) for each in zip(*layers, strict=True)])
        logits = torch.cat(logits)
        tops.append(logits.argmax(-1).numpy())
        distributions.append(logits.softmax(-1)[::4].numpy())
    # Some compute norms in float32 even in a float64 model.
    exact = 1e-7 if architecture in ("llama", "gemma2", "mamba") else 1e-9
    rel = 1e-4 if dtype == torch.float32 else exact
    cka = [kernel_cka(x, y) for x, y in zip(*states, strict=True)]
    by_layer = outcome.measurements["similarity"].arrays["cka_by_layer"]
    if architecture == "mamba":
        # transformers gives the states behind each of its blocks, and leaves the embeddings out.
        np.testing.assert_allclose(by_layer[1:-1], cka[:2], rtol=rel)
    else:
        np.testing.assert_allclose(by_layer, cka, rtol=rel)
    assert values["cka_last"] == pytest.approx(cka[-1], rel=rel)
    assert values["cka_mean"] == pytest.approx(np.mean(by_layer), rel=1e-12)
    assert values["principal_angle_last"] == pytest.approx(mean_angle(states[0][-1], states[1][-1]), rel=rel)
    # Capped logits tie in float32.
    assert values["agreement"] == pytest.approx(np.mean(tops[0] == tops[1]), abs=0.02 * (architecture == "gemma2"))
    expected = np.mean([jensenshannon(p, q, base=2) for p, q in zip(*distributions, strict=True)])
    assert values["jensen_shannon"] == pytest.approx(expected, rel=rel)
    assert 0 < values["agreement"] < 1
    assert 0 < values["cka_last"] < 1


def test_batches_do_not_change_what_is_compared(tokenizer, documents, tmp_path):
    make_model("llama", 1).double().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = [
        measure(
            make_model("llama").double(),
            "similarity",
            corpus=documents,
            tokenizer=tokenizer,
            max_length=WINDOW,
            reference=str(tmp_path),
            similarity_tokens=300,
            batch_size=size,
        )
        .measurements["similarity"]
        .metrics
        for size in (1, 7)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-10)


def test_what_cannot_be_compared_is_null_with_a_sentence(tokenizer, documents, tmp_path):
    model = make_model("gpt_neox")

    def reasons(probes="similarity", **arguments) -> tuple[dict, dict]:
        outcome = measure(model, probes, corpus=documents, tokenizer=tokenizer, max_length=WINDOW, **arguments)
        name = probes if isinstance(probes, str) else probes[0]
        return outcome.measurements[name].metrics, outcome.provenance["probes"][name].get("reasons", {})

    make_model("llama").save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    wider = type(model)(type(model.config)(**{**model.config.to_dict(), "hidden_size": 96, "num_hidden_layers": 2}))
    wider.save_pretrained(tmp_path / "wider")
    tokenizer.save_pretrained(tmp_path / "wider")
    values, why = reasons(reference=str(tmp_path / "wider"))
    assert values["cka_last"] is None
    assert why["cka_last"] == (
        "the model has 3 layers of width 48 and the reference 2 layers of width 96: compare models of one shape"
    )
    assert values["agreement"] >= 0
    assert values["jensen_shannon"] > 0
    values, why = reasons(reference=str(tmp_path / "nowhere"))
    assert set(values.values()) == {None}
    assert "nowhere" in why["agreement"]
    # Another tokenizer.
    from tiny_tokenizers import byte_tokenizer

    byte_tokenizer().save_pretrained(tmp_path / "llama")
    values, why = reasons(reference=str(tmp_path / "llama"))
    assert "another tokenizer" in why["agreement"]
    # A reference with weights that are not finite.
    broken = make_model("gpt_neox", 3)
    with torch.no_grad():
        broken.get_output_embeddings().weight.fill_(math.nan)
    broken.save_pretrained(tmp_path / "broken")
    tokenizer.save_pretrained(tmp_path / "broken")
    values, why = reasons(reference=str(tmp_path / "broken"))
    assert "broken cannot be used" in why["agreement"]
    values, why = reasons("weights", reference=str(tmp_path / "broken"))
    assert values["spectral_norm_max"] > 0
    assert "not finite" in why["relative_change"]
    values, why = reasons("weights", reference=str(tmp_path / "wider"))
    assert "other weight matrices" in why["relative_change"]
    values, why = reasons("sharpness", reference=str(tmp_path / "wider"), sharpness_tokens=100)
    assert "other parameters" in why["critical_sharpness"]


def test_a_reference_may_have_any_name(tokenizer, documents, tmp_path, monkeypatch):
    """What is computed of the checkpoint itself is never taken for what is computed of the reference."""
    monkeypatch.chdir(tmp_path)
    make_model("gpt2", 1).save_pretrained("own")
    tokenizer.save_pretrained("own")
    outcome = measure(
        make_model("gpt2", 0),
        "similarity",
        corpus=documents,
        tokenizer=tokenizer,
        reference="own",
        similarity_tokens=50,
    )
    assert outcome.measurements["similarity"].metrics["agreement"] < 1
