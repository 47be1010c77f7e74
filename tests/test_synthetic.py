"""Markov sources against sums over all texts, eigenvectors, counts, and a model that is the optimal predictor."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import transformers
from evaluation import rolling_requests
from lm_eval.models.huggingface import HFLM

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.synthetic import END_OF_TEXT, MarkovSource

SOURCES = [
    {"vocabulary": 12},
    {"vocabulary": 20, "rank": 4},
    {"vocabulary": 6, "order": 2, "rank": 3, "concentration": 0.5},
    {"vocabulary": 3, "order": 3, "concentration": 1.0},
]


@pytest.fixture(params=SOURCES, ids=str)
def source(request) -> MarkovSource:
    return MarkovSource.make(**request.param, seed=1)


def two_states(a: float, b: float) -> MarkovSource:
    """Return the chain that leaves its states with probabilities a and b."""
    return MarkovSource(np.array([[1 - a, a], [b, 1 - b]]), np.eye(2))


def transitions(source: MarkovSource) -> np.ndarray:
    """Return the matrix of contexts against contexts, entry by entry."""
    contexts = list(itertools.product(range(source.vocabulary), repeat=source.order))
    matrix = np.zeros((len(contexts), len(contexts)))
    for row, context in enumerate(contexts):
        for token in range(source.vocabulary):
            matrix[row, contexts.index((*context[1:], token))] += source.probabilities[row, token]
    return matrix


def counts(texts: np.ndarray, source: MarkovSource) -> np.ndarray:
    """Return how often each token follows each context, in a loop over texts."""
    found = np.zeros((source.vocabulary**source.order, source.vocabulary))
    for text in texts.tolist():
        for *context, token in zip(*(text[start:] for start in range(source.order + 1)), strict=False):
            row = sum(v * source.vocabulary**power for power, v in enumerate(reversed(context)))
            found[row, token] += 1
    return found


def parse(documents) -> np.ndarray:
    return np.array([[int(word.removeprefix("t")) for word in text.split(" ")] for text in documents])


def test_rows_are_distributions(source):
    assert source.probabilities.shape == (source.vocabulary**source.order, source.vocabulary)
    assert source.probabilities.min() >= 0
    np.testing.assert_allclose(source.probabilities.sum(1), 1, atol=1e-14)


def test_stationary_distribution_is_the_left_eigenvector(source):
    matrix = transitions(source)
    values, vectors = np.linalg.eig(matrix.T)
    nearest = np.argmin(abs(values - 1))
    expected = vectors[:, nearest].real / vectors[:, nearest].real.sum()
    assert source.stationary.sum() == pytest.approx(1, abs=1e-14)
    assert abs(source.stationary - expected).sum() < 1e-12
    assert abs(source.stationary @ matrix - source.stationary).sum() < 1e-13


def test_two_states():
    """The chain of two states, in closed form."""
    a, b = 0.003, 0.001
    source = two_states(a, b)
    np.testing.assert_allclose(source.stationary, [b / (a + b), a / (a + b)], atol=1e-12, rtol=0)
    entropies = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (a, b)]
    assert source.entropy_rate == pytest.approx((b * entropies[0] + a * entropies[1]) / (a + b), rel=1e-12)
    assert np.prod(source.singular_values()) == pytest.approx(1 - a - b, rel=1e-12)


def test_a_source_without_choice_has_no_entropy():
    source = MarkovSource(np.eye(3)[[1, 2, 0]], np.eye(3))
    assert source.entropy_rate == 0
    text = source.sample(100)
    assert source.loss(np.array([0, 2])) == math.inf
    assert all(after == (before + 1) % 3 for before, after in itertools.pairwise(text.tolist()))


def test_slow_mixing_is_refused():
    with pytest.raises(LmsatError, match=r"not in equilibrium after 10,000 tokens: .*concentration"):
        _ = two_states(2e-6, 1e-6).stationary


def test_entropy_rate_and_loss_against_all_texts(source):
    """H(x₁…xₜ) summed over every text of t tokens grows by the entropy rate with each token past the order."""
    entropies = []
    for length in (source.order, source.order + 1):
        texts = itertools.product(range(source.vocabulary), repeat=length)
        nats = [length * source.loss(np.array(text)) for text in texts]
        assert math.fsum(math.exp(-n) for n in nats) == pytest.approx(1, abs=1e-12)
        entropies.append(math.fsum(n * math.exp(-n) for n in nats if n < math.inf))
    assert entropies[1] - entropies[0] == pytest.approx(source.entropy_rate, rel=1e-11)


def test_loss_of_less_than_a_context_is_the_marginal():
    source = MarkovSource.make(5, order=2, seed=3)
    marginal = source.stationary.reshape(5, 5).sum(0)
    assert [math.exp(-source.loss(np.array([token]))) for token in range(5)] == pytest.approx(marginal)


def test_entropy_rate_is_the_mean_loss_of_a_sample(source):
    texts = parse(source.documents(2000, 100, seed=7))
    nats = np.array([len(text) * source.loss(text) for text in texts])
    head = np.log(source.stationary[source.stationary > 0]) @ source.stationary[source.stationary > 0]
    expected = (100 - source.order) * source.entropy_rate - head
    assert abs(nats.mean() - expected) < 3.5 * nats.std(ddof=1) / math.sqrt(len(nats))
    assert nats.std() / math.sqrt(len(nats)) < 0.01 * expected


@pytest.mark.parametrize("drawn", ["documents", "sample"])
def test_counts_are_those_of_the_source(source, drawn):
    """χ² of what follows each context, and of the contexts, within 4.5 standard deviations."""
    texts = parse(source.documents(400, 300)) if drawn == "documents" else source.sample(120_000)[None]
    found = counts(texts, source)
    assert not found[source.probabilities == 0].any()
    rows = found.sum(1, keepdims=True)
    expected = rows * source.probabilities
    seen = expected > 5
    chi2 = ((found - expected)[seen] ** 2 / expected[seen]).sum()
    freedom = seen.sum() - (rows > 0).sum()
    assert abs(chi2 - freedom) < 4.5 * math.sqrt(2 * seen.sum())
    assert abs(rows[:, 0] / rows.sum() - source.stationary).sum() < 0.05


def test_a_sample_in_pieces_is_the_one_drawn_token_by_token(source):
    """The same random numbers, one after another in a loop over the source's probabilities."""
    n = 1000
    rng = np.random.default_rng(5)
    pieces = math.isqrt(n)
    uniform = rng.random((-(-n // pieces), pieces)).T.ravel()[:n]
    row = rng.choice(len(source.stationary), size=pieces, p=source.stationary)[0]
    expected = []
    for number in uniform:
        expected.append(int((np.cumsum(source.probabilities[row]) <= number).sum()))
        row = (row * source.vocabulary + expected[-1]) % len(source.stationary)
    assert source.sample(n, seed=5).tolist() == expected


def test_seeds(source):
    np.testing.assert_array_equal(source.sample(500, seed=2), source.sample(500, seed=2))
    assert (source.sample(500, seed=2) != source.sample(500, seed=3)).any()
    first = list(source.documents(3, 20, seed=2))
    assert first == list(itertools.islice(source.documents(None, 20, seed=2), 3))
    assert first != list(source.documents(3, 20, seed=3))
    assert len(set(first)) == 3
    again, other = (MarkovSource.make(12, seed=seed).probabilities for seed in (1, 2))
    np.testing.assert_array_equal(MarkovSource.make(12, seed=1).probabilities, again)
    assert (again != other).any()


def test_documents_beyond_one_draw(monkeypatch):
    monkeypatch.setattr("lmsat_plugin.synthetic._TOKENS_AT_ONCE", 50)
    texts = list(MarkovSource.make(12).documents(13, 10))
    assert len(set(texts)) == 13


@pytest.mark.parametrize("weighted", [False, True])
def test_spectrum_and_rank_against_lapack(source, weighted):
    rows = np.sqrt(source.stationary)[:, None] if weighted else 1.0
    expected = np.linalg.svd(rows * source.probabilities, compute_uv=False)
    ours = source.singular_values(weighted)
    np.testing.assert_allclose(ours, expected[: len(ours)], atol=1e-14, rtol=0)
    assert expected[len(ours) :].max(initial=0) < 1e-14


@pytest.mark.parametrize(("order", "rank"), [(1, 1), (1, 7), (2, 5), (2, 16), (1, None)])
def test_rank_is_exactly_the_one_asked_for(order, rank):
    source = MarkovSource.make(16, order=order, rank=rank, seed=4)
    assert np.linalg.matrix_rank(source.probabilities) == (rank or 16)
    assert len(source.singular_values()) == (rank or 16)


@pytest.mark.parametrize("order", [1, 2])
def test_n_gram_spectrum_approaches_the_source_s(order):
    source = MarkovSource.make(10, order=order, rank=4, seed=2, concentration=0.5)
    expected = np.append(source.singular_values(), np.zeros(6))
    errors = []
    for n in (5_000, 500_000):
        found = counts(source.sample(n, seed=1)[None], source)
        observed = found[found.any(1)]
        s = np.linalg.svd(observed / observed.sum(1, keepdims=True), compute_uv=False)
        errors.append(np.linalg.norm(s - expected) / np.linalg.norm(expected))
    # Errors of counting fall with the root of the sample.
    assert errors[1] < errors[0] / 5
    assert errors[1] < 0.05


def test_tokenizer_encodes_words_one_to_one(tmp_path):
    source = MarkovSource.make(30, seed=1)
    source.tokenizer().save_pretrained(tmp_path)
    for tokenizer in (source.tokenizer(), transformers.AutoTokenizer.from_pretrained(tmp_path)):
        assert len(tokenizer) == 31
        assert tokenizer.eos_token_id == tokenizer.bos_token_id == 30
        for text in source.documents(5, 40):
            tokens = tokenizer.encode(text, add_special_tokens=False)
            assert tokens == parse([text])[0].tolist()
            assert tokenizer.decode(tokens) == text
        assert tokenizer.encode(f"t29 {END_OF_TEXT} another t0", add_special_tokens=False) == [29, 30, 30, 0]


def optimal_predictor(source: MarkovSource) -> transformers.LlamaForCausalLM:
    """Return a Llama without blocks whose logits after token c, in one-hot states, are ln P_c."""
    width = source.vocabulary + 1
    shape = {"vocab_size": width, "hidden_size": width, "intermediate_size": 1, "num_hidden_layers": 0}
    config = transformers.LlamaConfig(
        **shape, num_attention_heads=1, head_dim=2, tie_word_embeddings=False, rms_norm_eps=0.0
    )
    model = transformers.LlamaForCausalLM(config).double().eval()
    rows = np.vstack([source.probabilities, source.stationary])
    logits = np.log(np.pad(rows, ((0, 0), (0, 1)), constant_values=1e-300))
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(width))
        model.lm_head.weight.copy_(torch.from_numpy(logits.T / math.sqrt(width)))
    return model


def test_lmsat_and_lm_eval_measure_the_source_s_loss():
    source = MarkovSource.make(20, rank=5, seed=3)
    documents = list(source.documents(30, 50))
    tokens = parse(documents)
    expected = np.mean([source.loss(text) for text in tokens])
    model, tokenizer = optimal_predictor(source), source.tokenizer()
    outcome = measure(model, ["loss"], corpus=documents, tokenizer=tokenizer, max_tokens=None)
    assert outcome.metrics["lmsat_loss/tokens"] == tokens.size
    assert outcome.metrics["lmsat_loss/loss"] == pytest.approx(expected, rel=1e-9)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, max_length=64, device="cpu")
    nats = lm.loglikelihood_rolling(rolling_requests(documents), disable_tqdm=True)
    assert -sum(nats) / tokens.size == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"vocabulary": 1}, "vocabulary=1 with order=1 .*at least 2 tokens"),
        ({"vocabulary": 4, "order": 0}, "order=0 .*order 1"),
        ({"vocabulary": 400, "order": 2}, r"400\*\*3 probabilities, .*50,000,000.*smaller"),
        ({"vocabulary": 10**9}, "smaller vocabulary"),
        ({"vocabulary": 4, "rank": 5}, "rank=5 is not between 1 and vocabulary=4"),
        ({"vocabulary": 4, "rank": 0}, "rank=0"),
        ({"vocabulary": 4, "concentration": 0.0}, "concentration=0.0 is not a positive"),
        ({"vocabulary": 4, "concentration": math.nan}, "concentration=nan"),
        ({"vocabulary": 9, "rank": 9, "concentration": 1e-4}, "concentration=0.0001 .*below 9: give another"),
    ],
)
def test_bad_sources_are_one_sentence(arguments, sentence):
    with pytest.raises(LmsatError, match=sentence):
        MarkovSource.make(**arguments)


def test_bad_samples_are_one_sentence():
    source = MarkovSource.make(4)
    with pytest.raises(LmsatError, match="n=0"):
        source.sample(0)
    with pytest.raises(LmsatError, match="length=0"):
        source.documents(1, 0)
    for tokens in ([], [[1]], [1.0]):
        with pytest.raises(LmsatError, match="not a sequence"):
            source.loss(np.array(tokens))
    for tokens in ([0, 4], [-1]):
        with pytest.raises(LmsatError, match="0 to 3"):
            source.loss(np.array(tokens))


def test_least_loss_falls_to_the_entropy_rate_at_the_rank_of_the_logarithms():
    """softmax(H W) with H and W of rank 3 is a source that a head of rank 3, but of no lower rank, predicts."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(12, 3)) @ rng.normal(size=(3, 12))
    rows = np.exp(logits)
    source = MarkovSource(rows / rows.sum(1, keepdims=True), np.eye(12))
    losses = [source.least_loss(rank) for rank in (1, 2, 3, 12)]
    assert losses[0] > losses[1] > source.entropy_rate + 1e-3
    assert losses[2:] == pytest.approx([source.entropy_rate] * 2, abs=1e-5)
    # One dimension can hold the frequencies of the tokens.
    assert losses[0] < -np.log(source.stationary) @ source.stationary


def test_least_loss_refuses_a_rank_out_of_range():
    with pytest.raises(LmsatError, match="rank=13 is not between 1 and vocabulary=12"):
        MarkovSource.make(12).least_loss(13)
