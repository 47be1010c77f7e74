"""Anisotropy, the head's spectrum and truncated heads against loops over pairs, LAPACK and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from evaluation import rolling_requests
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tiny_models import ROWS, VOCAB, WINDOW, make_model

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.model.lm_head import is_tied
from lmsat_plugin.model.restricted_head import truncate_head
from lmsat_plugin.model.spectrum import singular_values, triangle
from lmsat_plugin.probe import ProbeContext
from lmsat_plugin.probes.anisotropy import AnisotropyProbe


def states_of(model, tokenizer, texts) -> list[np.ndarray]:
    """Return each layer's states [tokens, width] that predict a token, from lm-eval's windows one by one."""
    parts = []
    for text in texts:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        pairs = get_rolling_token_windows(tokens, prefix_token=0, max_seq_len=WINDOW, context_len=1)
        for context, continuation in map(make_disjoint_window, pairs):
            inputs = torch.tensor([[*context, *continuation[:-1]]])
            with torch.no_grad():
                layers = list(model(inputs, output_hidden_states=True).hidden_states)
                if model.config.model_type == "mamba":  # its list begins after the first block
                    layers = [model.get_input_embeddings()(inputs), *layers[:-2], layers[-1]]
            parts.append([layer[0, -len(continuation) :].double().numpy() for layer in layers])
    return list(map(np.concatenate, zip(*parts, strict=True)))


def mean_cosine_of_pairs(states) -> float:
    cosines = [
        math.fsum(a * b) / math.sqrt(math.fsum(a * a) * math.fsum(b * b))
        for (i, a), (j, b) in itertools.product(enumerate(states), repeat=2)
        if i != j
    ]
    return math.fsum(cosines) / len(cosines)


def mean_cosine(states) -> float:
    units = states / np.linalg.norm(states, axis=1, keepdims=True)
    cosines = units @ units.T
    return cosines[~np.eye(len(units), dtype=bool)].mean()


# A document longer than a window, so that the last window begins with states that are not counted.
TEXTS = ["The states that predict a token are counted once. " * 4, "Two words", "naïve — 🙂"]


def test_anisotropy_against_a_loop_over_pairs(tokenizer):
    model = make_model("gpt_neox").double()
    outcome = measure(model, ["anisotropy"], corpus=TEXTS, tokenizer=tokenizer, batch_size=2)
    layers = states_of(model, tokenizer, TEXTS)
    assert len(layers[0]) > WINDOW + 10
    expected = list(map(mean_cosine_of_pairs, layers))
    np.testing.assert_allclose(outcome.arrays["anisotropy/by_layer"], expected, rtol=1e-9)
    summary = {"last": expected[-1], "mean": np.mean(expected), "max": max(expected)}
    for key, value in summary.items():
        assert outcome.metrics[f"anisotropy/anisotropy_{key}"] == pytest.approx(value, rel=1e-9)


def test_anisotropy_of_every_architecture(architecture, tokenizer, documents):
    model = make_model(architecture)
    texts = [text for text in documents if text][:5]
    arrays = measure(model, ["anisotropy"], corpus=texts, tokenizer=tokenizer, max_length=WINDOW).arrays
    layers = states_of(model, tokenizer, texts)
    np.testing.assert_allclose(arrays["anisotropy/by_layer"], list(map(mean_cosine, layers)), rtol=1e-4)
    norms = [np.linalg.norm(states, axis=1).mean() for states in layers]
    np.testing.assert_allclose(arrays["anisotropy/mean_norm_by_layer"], norms, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama"])
def test_effective_rank_against_lapack(architecture, tokenizer, documents):
    """Of the centred states; behind gpt_neox' norm their covariance is singular."""
    model = make_model(architecture).double()
    outcome = measure(model, ["anisotropy"], corpus=documents, tokenizer=tokenizer, max_tokens=None)
    states = states_of(model, tokenizer, documents)[-1]
    centred = states - states.mean(0)
    s = np.linalg.svd(centred, compute_uv=False)
    p = s[s > 0] / s.sum()
    assert outcome.metrics["anisotropy/effective_rank_last"] == pytest.approx(
        np.exp(-(p * np.log(p)).sum()), rel=1e-6
    )
    eigenvalues = outcome.arrays["anisotropy/last_covariance_eigenvalues"]
    np.testing.assert_allclose(
        eigenvalues, s**2 / len(states), rtol=1e-9, atol=1e-12 * s[0] ** 2 / len(states)
    )


def anisotropy_of(batches: list[torch.Tensor]) -> float:
    """Return the anisotropy of states that come in batches."""
    width = batches[0].shape[1]
    context = ProbeContext(None, None, 0, torch.device("cpu"), synchronise=False, layer_widths=(width, width))
    probe = AnisotropyProbe()
    probe.start(context)
    for batch, layer in itertools.product(batches, (0, 1)):
        probe.update_hidden(layer, batch, None)
    return probe.finish().metrics["anisotropy_last"]


@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 7))
def test_anisotropy_of_repeated_directions(directions, copies, size):
    """States along orthogonal directions, so many copies of each: of the other states, copies − 1 are parallel."""
    if directions * copies < 2:
        return
    lengths = torch.arange(1.0, directions * copies + 1)[:, None]
    states = torch.eye(8)[:directions].repeat(copies, 1) * lengths
    expected = (copies - 1) / (directions * copies - 1)
    assert anisotropy_of(list(states.split(size))) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("cosine", [-1.0, -0.5, 0.0, 1.0])
def test_anisotropy_of_two_states_is_their_cosine(cosine):
    states = torch.tensor([[2.0, 0.0], [3 * cosine, 3 * math.sqrt(1 - cosine**2)]], dtype=torch.float64)
    assert anisotropy_of([states]) == pytest.approx(cosine, abs=1e-15)


def test_anisotropy_of_one_token_is_an_error(tokenizer):
    with pytest.raises(LmsatError, match=r"at least 2 tokens: .*max_tokens"):
        measure(make_model("llama"), ["anisotropy"], corpus=["word"], tokenizer=tokenizer, max_tokens=1)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_broken_layer_is_named(layer, tokenizer):
    """Not a number from the embeddings or a block on: the states behind it are the first that are broken."""
    model = make_model("llama")
    with torch.no_grad():
        if layer:
            model.model.layers[layer - 1].mlp.down_proj.weight[5, 5] = math.nan
        else:
            model.get_input_embeddings().weight.fill_(0)
    with pytest.raises(
        LmsatError, match=f"hidden states of layer {layer} of 3 are not finite or zero: .*float32"
    ):
        measure(model, ["anisotropy"], corpus=["a few words"], tokenizer=tokenizer)


def head_of(spectrum, rows=VOCAB, seed=0) -> np.ndarray:
    """Return a matrix U diag(s) Vᵀ of this spectrum, with random orthonormal U and V."""
    generator = np.random.default_rng(seed)
    u, v = (np.linalg.qr(generator.standard_normal((n, len(spectrum))))[0] for n in (rows, len(spectrum)))
    return (u * spectrum) @ v.T


def measured_head(weight, tokenizer, dtype=torch.float64):
    """Measure a model whose head has these rows for the tokenizer's tokens, and large padding."""
    model = make_model("llama").to(dtype)
    assert not is_tied(model)
    with torch.no_grad():
        model.lm_head.weight.fill_(1e6)
        model.lm_head.weight[:VOCAB] = torch.from_numpy(weight).to(dtype)
    return measure(model, ["head"], tokenizer=tokenizer), model.lm_head.weight[:VOCAB].detach()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_spectrum_against_lapack(dtype, tokenizer):
    """A condition number of 1e5: by a Gram matrix the small singular values would be off by percents."""
    outcome, weight = measured_head(head_of(np.logspace(0, -5, 48)), tokenizer, dtype)
    expected = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(outcome.arrays["head/singular_values"], expected, rtol=1e-6)
    assert outcome.metrics["head/condition_number"] == pytest.approx(expected[0] / expected[-1], rel=1e-6)
    if dtype == torch.float64:
        assert outcome.metrics["head/condition_number"] == pytest.approx(1e5, rel=1e-6)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 9), st.integers(0, 9))
def test_triangle_by_blocks_has_the_matrix_gram(rows, width, block, seed):
    matrix = torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, width)))
    r = triangle(matrix, block)
    assert r.shape == (min(rows, width), width)
    np.testing.assert_allclose(r.T @ r, matrix.T @ matrix, atol=1e-12)


def test_spectrum_of_a_head_of_many_blocks():
    matrix = np.random.default_rng(0).standard_normal((20_000, 6)) * np.logspace(0, -4, 6)
    ours, expected = singular_values(torch.from_numpy(matrix)), np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_flat_spectrum(tokenizer):
    outcome, _ = measured_head(head_of(np.full(48, 0.3)), tokenizer)
    expected = {
        "singular_entropy": 0,
        "singular_entropy_linear": 0,
        "effective_rank": 48,
        "stable_rank": 48,
        "condition_number": 1,
        "top_singular_ratio": 1,
    }
    assert outcome.measurements["head"].metrics == pytest.approx(expected, abs=1e-9)


def test_spectrum_with_one_dominant_value(tokenizer):
    """What is left of the rest falls with the ratio, and so does the distance to ln d and to rank 1."""
    outcome, _ = measured_head(head_of(np.array([1.0] + [1e-9] * 47)), tokenizer)
    expected = {
        "singular_entropy": math.log(48),
        "singular_entropy_linear": math.log(48),
        "effective_rank": 1,
        "stable_rank": 1,
        "condition_number": 1e9,
        "top_singular_ratio": 48,
    }
    assert outcome.measurements["head"].metrics == pytest.approx(expected, rel=2e-6)


def test_spectrum_of_two_levels(tokenizer):
    """Half the singular values twice the other half: p = s²/Σs² is 4/5 and 1/5, p = s/Σs 2/3 and 1/3, over 24."""
    outcome, _ = measured_head(head_of(np.repeat([2.0, 1.0], 24)), tokenizer)

    def kl(p):
        return math.log(48) + p * math.log(p / 24) + (1 - p) * math.log((1 - p) / 24)

    expected = {
        "singular_entropy": kl(4 / 5),
        "singular_entropy_linear": kl(2 / 3),
        "effective_rank": 48 * math.exp(-kl(2 / 3)),
        "stable_rank": 24 * 5 / 4,
        "condition_number": 2,
        "top_singular_ratio": 4 / 3,
    }
    assert outcome.measurements["head"].metrics == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("value", "message"), [(math.nan, "not finite in 2 rows, first in that of token 7"), (0, "zero")]
)
def test_broken_head_is_an_error(value, message, tokenizer):
    weight = head_of(np.ones(48)) if value else np.zeros((VOCAB, 48))
    weight[[7, 9], 3] = value
    with pytest.raises(LmsatError, match=message):
        measured_head(weight, tokenizer)


def truncated(weight: torch.Tensor, rank: int) -> torch.Tensor:
    u, s, vt = np.linalg.svd(weight.detach().double().numpy(), full_matrices=False)
    return torch.from_numpy((u[:, :rank] * s[:rank]) @ vt[:rank]).to(weight.dtype)


def test_truncated_head_is_the_truncated_svd(architecture):
    model = make_model(architecture)
    head, inputs = model.get_output_embeddings(), model.get_input_embeddings()
    before, bias = inputs.weight.clone(), getattr(head, "bias", None)
    rank = head.weight.shape[1] // 3
    expected = truncated(head.weight, rank)
    truncate_head(model, rank)
    new = model.get_output_embeddings()
    torch.testing.assert_close(new.weight, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert np.linalg.matrix_rank(new.weight.double().numpy(), tol=1e-4) == rank
    assert torch.equal(inputs.weight, before)
    assert model.get_input_embeddings() is inputs
    model.tie_weights()
    assert not is_tied(model), "nothing ties it again, as loading and saving do"
    assert getattr(new, "bias", None) is bias


def test_head_of_full_rank_leaves_the_model_as_it_is(architecture):
    model, window = make_model(architecture), torch.arange(2, 50)[None]
    with torch.no_grad():
        expected = model(window).logits
        truncate_head(model, model.get_output_embeddings().weight.shape[1])
        torch.testing.assert_close(model(window).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "gemma2"])
def test_head_rank_through_lm_eval(architecture, checkpoint, documents, tokenizer):
    """The same as lm-eval's own model with a head put in by hand; gpt2's and gemma2's are tied."""
    options = {"device": "cpu", "max_length": WINDOW}
    lm = SaturationLM(pretrained=str(checkpoint(architecture)), dtype="float32", head_rank=10, **options)
    model = make_model(architecture)
    assert is_tied(model) == (architecture != "gpt_neox")
    model.config.tie_word_embeddings = False
    low = truncated(model.get_output_embeddings().weight, 10)
    model.set_output_embeddings(torch.nn.Linear(*low.T.shape, bias=False))
    model.get_output_embeddings().weight = torch.nn.Parameter(low)
    hf = HFLM(pretrained=model, tokenizer=tokenizer, softmax_dtype="float32", **options)
    ours, theirs = (each.loglikelihood_rolling(rolling_requests(documents[:5]), True) for each in (lm, hf))
    assert ours == pytest.approx(theirs, rel=1e-5, abs=0)
    whole = SaturationLM(pretrained=str(checkpoint(architecture)), dtype="float32", **options)
    assert whole.loglikelihood_rolling(rolling_requests(documents[:5]), True) != pytest.approx(
        theirs, rel=1e-3
    )


@pytest.mark.parametrize("rank", [0, -1, 49, 1.5, "x", True])
def test_head_rank_that_is_none(rank, checkpoint):
    with pytest.raises(LmsatError, match=f"head_rank={rank} is not a rank of this head: .* from 1 to 48"):
        SaturationLM(pretrained=str(checkpoint("llama")), head_rank=rank, device="cpu")


def test_padded_rows_are_in_the_denominator_of_the_loss(tokenizer):
    """The spectrum leaves them out; the model's own softmax does not."""
    model = make_model("llama").double()
    metrics = measure(model, ["loss"], corpus=["a few words"], tokenizer=tokenizer).metrics
    tokens = torch.tensor(tokenizer.encode("a few words"))
    with torch.no_grad():
        logits = model(torch.tensor([[0, *tokens[:-1]]])).logits[0]
    assert logits.shape[1] == ROWS > VOCAB
    expected = torch.nn.functional.cross_entropy(logits, tokens)
    assert metrics["loss/loss"] == pytest.approx(float(expected), rel=1e-9)
