"""Counts of n-grams against a dictionary, spectra against a dense SVD, and the same numbers by every road."""

from __future__ import annotations

import json
import math
import resource
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import yaml
from evaluation import evaluate
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file
from scipy.sparse import csr_array
from tiny_models import VOCAB

from lmsat_plugin import measure
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.ngrams import corpus, counting, spectrum
from lmsat_plugin.ngrams.corpus import token_stream
from lmsat_plugin.ngrams.counting import count_ngrams
from lmsat_plugin.ngrams.lanczos import ritz_values
from lmsat_plugin.ngrams.pairs import read_config
from lmsat_plugin.ngrams.spectrum import ngram_spectrum
from lmsat_plugin.plugins import plugins
from lmsat_plugin.text.corpora import CorpusSettings, load_corpus

# 70,000 tokens to the fourth power are more than 64 bits.
VOCABULARIES = [1, 2, 5, 40, 70_000]


def successors_of(documents, order) -> dict[tuple[int, ...], Counter]:
    """Return how often each token follows each context, by looking at one n-gram after the other."""
    found: dict[tuple[int, ...], Counter] = defaultdict(Counter)
    for document in documents:
        for i in range(len(document) - order + 1):
            *context, successor = (int(token) for token in document[i : i + order])
            found[tuple(context)][successor] += 1
    return found


def dense(documents, order, vocab_size, weighted=False) -> np.ndarray:
    """Return W, a row for each context."""
    rows = []
    for counts in successors_of(documents, order).values():
        row = np.zeros(vocab_size)
        row[list(counts)] = np.array(list(counts.values())) / counts.total()
        rows.append(row * math.sqrt(counts.total()) if weighted else row)
    return np.array(rows)


def w_error_of(matrix) -> np.ndarray:
    """Return the W-error of each dimension by LAPACK, for a column of the matrix each."""
    s = np.linalg.svd(matrix, compute_uv=False)
    s = np.concatenate([s, np.zeros(max(matrix.shape[1] - len(s), 0))])[: matrix.shape[1]]
    return np.array([math.sqrt(math.fsum(s[d:] ** 2) / math.fsum(s**2)) for d in range(1, len(s) + 1)])


def phrases(seed, vocab_size, length, order=5, disorder=0.03) -> list[np.ndarray]:
    """Return documents of few phrases said again and again, with rare slips after frequent contexts."""
    rng = np.random.default_rng(seed)
    known = [rng.integers(0, vocab_size, rng.integers(2, 12)) for _ in range(6)]
    parts = [
        rng.integers(0, vocab_size, 3) if rng.random() < disorder else known[int(rng.zipf(1.6)) % 6]
        for _ in range(length // 6 + 1)
    ]
    text = np.concatenate(parts).astype(np.int32)
    return [
        *np.split(text, sorted(rng.integers(0, len(text), 3))),
        np.arange(order, dtype=np.int32) % vocab_size,
    ]


def twins(seed, vocab_size, length, order) -> list[np.ndarray]:
    """Return n-grams of even tokens, each with its successor and with the odd one after: columns are pairwise equal."""
    rng = np.random.default_rng(seed)
    even = 2 * np.minimum(rng.zipf(1.5, length + order) - 1, max(vocab_size // 2 - 1, 0)).astype(np.int32)
    windows = np.lib.stride_tricks.sliding_window_view(even, order)
    other = windows.copy()
    other[:, -1] += vocab_size > 1
    return [*windows, *other]


@given(
    vocab_size=st.sampled_from(VOCABULARIES),
    order=st.integers(1, 5),
    seed=st.integers(0, 1000),
    length=st.sampled_from([5, 50, 500]),
)
def test_counts_are_those_of_a_dictionary(vocab_size, order, seed, length):
    documents = phrases(seed, vocab_size, length)
    found = count_ngrams(iter(documents), order, vocab_size)
    assert_counts(found, documents, order, vocab_size)


def assert_counts(found, documents, order, vocab_size):
    expected = successors_of(documents, order)
    single = [counts for counts in expected.values() if len(counts) == 1]
    assert found.order == order
    assert found.tokens == sum(map(len, documents))
    assert found.contexts == len(expected)
    for counted, weigh in ((found.single_contexts_V, len), (found.single_ngrams_V, Counter.total)):
        totals: Counter = Counter()
        for counts in single:
            totals[next(iter(counts))] += weigh(counts)
        assert counted.shape == (vocab_size,)
        assert {int(token): int(counted[token]) for token in counted.nonzero()[0]} == totals
    rows = found.branching_BV
    bounds = zip(rows.indptr, rows.indptr[1:], strict=False)
    shown = Counter(frozenset(zip(rows.indices[a:b], rows.data[a:b], strict=True)) for a, b in bounds)
    assert shown == Counter(frozenset(c.items()) for c in expected.values() if len(c) > 1)


@pytest.mark.parametrize("vocab_size", [40, 70_000])
def test_counts_on_disk_are_the_same(tmp_path, monkeypatch, vocab_size):
    documents = phrases(0, vocab_size, 5000)
    monkeypatch.setattr(counting, "_BLOCK", 300)
    monkeypatch.setattr(counting, "_IN_MEMORY", 1000)
    opened = []
    temporary_file = counting.tempfile.TemporaryFile
    monkeypatch.setattr(
        counting.tempfile, "TemporaryFile", lambda **k: opened.append(temporary_file(**k)) or opened[-1]
    )
    found = count_ngrams(documents, 3, vocab_size, tmp_path)
    assert_counts(found, documents, 3, vocab_size)
    assert opened[0].closed
    assert list(tmp_path.iterdir()) == []


def test_small_corpora_do_not_touch_the_disk(monkeypatch):
    monkeypatch.setattr(counting.tempfile, "TemporaryFile", None)
    assert count_ngrams(phrases(0, 40, 5000), 3, 40).contexts > 100


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "_IN_MEMORY", 1000)
    documents = phrases(0, 40, 50_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(LmsatError, match=r"n-grams cannot be kept in .*free space") as caught:
            count_ngrams(documents, 3, 40, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("small", [True, False])
@given(
    text=st.sampled_from([phrases, twins]),
    vocab_size=st.sampled_from([1, 2, 3, 8, 30, 90]),
    order=st.integers(1, 5),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
    length=st.sampled_from([30, 300, 3000]),
)
def test_w_error_is_that_of_a_dense_svd(small, text, vocab_size, order, weighted, seed, length):
    documents = text(seed, vocab_size, length, order)
    counts = count_ngrams(documents, order, vocab_size)
    with pytest.MonkeyPatch.context() as patch:
        if not small:
            patch.setattr(spectrum, "_DENSE_ELEMENTS", 0)
        found = ngram_spectrum(counts, weighted=weighted)
    assert found.whole
    assert found.w_error_bound == 0
    assert found.w_error[-1] == 0
    matrix = dense(documents, order, vocab_size, weighted)
    np.testing.assert_allclose(found.w_error, w_error_of(matrix), rtol=0, atol=1e-8)
    assert (found.singular_values**2).sum() == pytest.approx((matrix**2).sum(), rel=1e-12)
    assert (np.diff(found.singular_values) <= 0).all()


@pytest.mark.parametrize("small", [True, False])
def test_the_tail_of_a_hapax_after_a_frequent_context(small, monkeypatch):
    """Two columns differ by one token among 100,000, so that all but 1e-5 of W has rank 1."""
    if not small:
        monkeypatch.setattr(spectrum, "_DENSE_ELEMENTS", 0)
    documents = [np.array([0, 1] * 50_000 + [0, 2] * 50_000 + [0, 2], dtype=np.int32)]
    found = ngram_spectrum(count_ngrams(documents, 2, 3))
    expected = w_error_of(dense(documents, 2, 3))
    np.testing.assert_allclose(found.w_error, expected, rtol=0, atol=1e-9)
    other = [np.array([0, 1] * 50_000 + [0, 2], dtype=np.int32)]
    found = ngram_spectrum(count_ngrams(other, 2, 3))
    np.testing.assert_allclose(found.w_error, w_error_of(dense(other, 2, 3)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("contexts", [25, 400])
@pytest.mark.parametrize("times", [10**5, 3 * 10**6, 10**8])
def test_the_tail_of_many_hapaxes(small, contexts, times, monkeypatch):
    """Contexts with hapaxes beside tokens that follow so many times: a tail far below the rest."""
    if not small:
        monkeypatch.setattr(spectrum, "_DENSE_ELEMENTS", 0)
    rng = np.random.default_rng(0)
    frequent = rng.integers(1, 4, (contexts, 20)) * times
    counts = branching_only(np.concatenate([rng.integers(0, 2, (contexts, 10)), frequent], axis=1))
    found = ngram_spectrum(counts)
    expected = w_error_of(frequencies_of(counts))
    np.testing.assert_allclose(found.w_error, expected, rtol=0, atol=1e-9)
    assert 0 < expected[20] < 1e-4


def test_closed_forms():
    cycle = [np.tile(np.arange(10, dtype=np.int32), 50)]
    found = ngram_spectrum(count_ngrams(cycle, 3, 10))
    np.testing.assert_allclose(found.w_error, np.sqrt(1 - np.arange(1, 11) / 10), atol=1e-15)
    np.testing.assert_allclose(found.singular_values, 1)
    assert (found.dimension(0.5), found.dimension(0.0), found.dimension(2.0)) == (8, 10, 1)
    frequencies = ngram_spectrum(count_ngrams([np.array([0, 0, 0, 1], dtype=np.int32)], 1, 3))
    np.testing.assert_allclose(frequencies.singular_values, [math.hypot(0.75, 0.25), 0, 0], atol=1e-15)
    np.testing.assert_allclose(frequencies.w_error, 0, atol=1e-15)


@pytest.mark.parametrize("decay", [0.0, 1.0, 3.0])
def test_block_lanczos_to_the_end(decay):
    """A basis that grows far beyond what is needed finds each eigenvalue once, to rounding."""
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((800, 800))).Q
    eigenvalues = (1 + rng.random(800)) * np.arange(1, 801.0) ** -decay
    matrix = (vectors * eigenvalues) @ vectors.T
    *_, (values, residuals) = ritz_values(lambda block: matrix @ block, 800, 50)
    np.testing.assert_allclose(values, np.sort(eigenvalues)[::-1][:50], rtol=0, atol=1e-12)
    assert residuals.max() < 1e-7


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("order", [2, 3])
def test_the_greatest_of_many(order, weighted, monkeypatch):
    monkeypatch.setattr(spectrum, "_WHOLE", 0)
    rng = np.random.default_rng(order)
    documents = [np.minimum(rng.zipf(1.2, 400), 900).astype(np.int32) - 1 for _ in range(100)]
    counts = count_ngrams(documents, order, 900)
    expected = w_error_of(dense(documents, order, 900, weighted))[:40]
    found = ngram_spectrum(counts, weighted=weighted, dimensions=40)
    assert not found.whole
    assert len(found.w_error) == len(found.singular_values) == 40
    np.testing.assert_allclose(found.w_error, expected, rtol=0, atol=5e-5)
    assert 0 < found.w_error_bound <= 5e-5
    # Where it stops early, the bound says how far off it is at most.
    monkeypatch.setattr(spectrum, "_BOUND", 1.0)
    rough = ngram_spectrum(counts, weighted=weighted, dimensions=40)
    assert rough.w_error_bound > found.w_error_bound
    above = rough.w_error - expected
    assert above.min() > -1e-12
    assert 0 < above.max() < rough.w_error_bound
    # Whoever wants all, or nearly, gets all.
    for options in ({"exact": True}, {"dimensions": 800}):
        assert ngram_spectrum(counts, **options).whole


def test_the_greatest_where_many_are_equal(monkeypatch):
    """Three hundred pairs of tokens with the same row each: one singular value, of rank 300."""
    monkeypatch.setattr(spectrum, "_WHOLE", 0)
    pairs = [np.array([i, 300 + i, i, 600 + i], dtype=np.int32) for i in range(300)]
    found = ngram_spectrum(count_ngrams(pairs, 2, 900), dimensions=64)
    np.testing.assert_allclose(found.w_error, w_error_of(dense(pairs, 2, 900))[:64], rtol=0, atol=5e-5)


def test_the_greatest_of_a_low_rank(monkeypatch):
    """Four hundred contexts with 20 distributions among them: the basis is soon exhausted."""
    monkeypatch.setattr(spectrum, "_WHOLE", 0)
    distributions = np.random.default_rng(0).integers(0, 4, (20, 500))
    counts = branching_only(np.tile(distributions, (20, 1)))
    found = ngram_spectrum(counts, dimensions=40)
    assert not found.whole
    expected = w_error_of(frequencies_of(counts))[:40]
    np.testing.assert_allclose(found.w_error[:19], expected[:19], rtol=0, atol=1e-12)
    # What is left is rounding of the squares.
    np.testing.assert_allclose(found.w_error[19:], 0, atol=1e-7)
    np.testing.assert_allclose(found.singular_values[20:], 0, atol=1e-6)


def branching_only(counts_BV) -> counting.NgramCounts:
    """Return the counts of a corpus that has these branching contexts and no others."""
    none = np.zeros(counts_BV.shape[1], dtype=np.int64)
    total = int(counts_BV.sum())
    return counting.NgramCounts(2, total, len(counts_BV), none, none, csr_array(counts_BV))


def frequencies_of(counts) -> np.ndarray:
    rows = counts.branching_BV.toarray()
    return rows / rows.sum(1, keepdims=True)


def test_what_does_not_fit_in_memory(monkeypatch):
    documents = phrases(0, 200, 20_000, disorder=0.5)
    counts = count_ngrams(documents, 2, 200)
    expected = ngram_spectrum(counts).w_error
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(LmsatError, match=r"all 200 singular values need 0 GB .* at most 50 dimensions"):
        ngram_spectrum(counts, exact=True)
    found = ngram_spectrum(counts, dimensions=50)
    assert not found.whole
    np.testing.assert_allclose(found.w_error, expected[:50], rtol=0, atol=5e-5)


@pytest.fixture
def folder(checkpoint) -> str:
    return str(checkpoint("gpt_neox"))


def tokens_of(corpus_file, tokenizer) -> list[list[int]]:
    texts = load_corpus(CorpusSettings(corpus=str(corpus_file)), plugins().corpora).documents
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


@pytest.mark.parametrize("weighted", [False, True])
def test_probe(folder, corpus_file, tokenizer, weighted):
    outcome = measure(
        folder, ["ngram"], corpus=str(corpus_file), order=3, dims=[1, 100, VOCAB], weighted=weighted
    )
    documents = tokens_of(corpus_file, tokenizer)
    expected = w_error_of(dense(documents, 3, VOCAB, weighted))
    half, negligible = (int((expected > threshold).sum()) + 1 for threshold in (0.5, 0.01))
    assert outcome.metrics == {
        **{f"ngram/w_error_{d}": pytest.approx(expected[d - 1], abs=1e-9) for d in (1, 100, VOCAB)},
        "ngram/contexts": len(successors_of(documents, 3)),
        "ngram/ngram_tokens": sum(map(len, documents)),
        "ngram/dimension_half": half,
        "ngram/dimension_negligible": negligible,
    }
    np.testing.assert_allclose(outcome.arrays["ngram/w_error"], expected, rtol=0, atol=1e-9)
    assert outcome.arrays["ngram/singular_values"].shape == (VOCAB,)


def test_probe_leaves_out_what_lies_beyond(folder, corpus_file, monkeypatch):
    monkeypatch.setattr(spectrum, "_WHOLE", 0)
    outcome = measure(folder, ["ngram"], corpus=str(corpus_file), order=2, dims=[4, 16])
    assert outcome.metrics.keys() == {f"ngram/{name}" for name in ("w_error_4", "w_error_16", *COUNTS)}
    assert outcome.arrays["ngram/w_error"].shape == (16,)


COUNTS = ("contexts", "ngram_tokens")


def test_task(folder, corpus_file, tmp_path):
    model_args = {"pretrained": folder, "device": "cpu", "arrays": str(tmp_path / "arrays")}
    results = evaluate("lmsat", ["lmsat_ngram"], model_args=model_args, corpus=str(corpus_file), order=2)
    row = results["results"]["lmsat_ngram"]
    [arrays] = (tmp_path / "arrays").iterdir()
    w_error = load_file(arrays)["ngram/w_error"]
    assert [row[f"w_error_{d},none"] for d in (64, 128, 256, 512)] == w_error[[63, 127, 255, 511]].tolist()


def test_task_on_the_command_line(folder, corpus_file, tmp_path):
    arguments = ["--model", "lmsat", "--model_args", f"pretrained={folder}", "--device", "cpu"]
    arguments += ["--tasks", "lmsat_ngram", "--output_path", str(tmp_path)]
    arguments += ["--metadata", f"corpus={corpus_file}", "order=4", "dims=[64,256]"]
    assert main(["eval", *arguments]) in (None, 0)
    [file] = tmp_path.rglob("results_*.json")
    row = json.loads(file.read_text())["results"]["lmsat_ngram"]
    assert {key for key in row if key.endswith(",none")} >= {"w_error_64,none", "w_error_256,none"}
    assert "w_error_128,none" not in row
    expected = measure(folder, ["ngram"], corpus=str(corpus_file), order=4, dims=[64, 256]).metrics
    assert row["w_error_64,none"] == expected["ngram/w_error_64"]


def test_command_agrees_with_the_probe(folder, corpus_file, capsys, tmp_path):
    arguments = ["ngram", str(corpus_file), "--tokenizer", folder, "--order", "3", "--weighted"]
    output = tmp_path / "found.json"
    assert main([*arguments, "--json", "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip("\n") == output.read_text()
    found = json.loads(printed)
    outcome = measure(folder, ["ngram"], corpus=str(corpus_file), order=3, weighted=True, max_tokens=None)
    for name in ("w_error", "singular_values"):
        assert found.pop(name) == outcome.arrays[f"ngram/{name}"].tolist()
    assert found == {
        "corpus": str(corpus_file),
        "tokenizer": folder,
        "order": 3,
        "weighted": True,
        "contexts": outcome.metrics["ngram/contexts"],
        "tokens": outcome.metrics["ngram/ngram_tokens"],
        "vocab_size": VOCAB,
        "exact": True,
        "w_error_bound": 0.0,
    }
    assert main(arguments) == 0
    table = capsys.readouterr().out
    for d in (1, 2, 64, 512):
        assert f"{outcome.arrays['ngram/w_error'][d - 1]:.4g}" in table
    assert f"{outcome.metrics['ngram/dimension_half']:,}" in table


def test_command_stops_after_so_many_tokens(folder, corpus_file, capsys):
    arguments = ["ngram", str(corpus_file), "--tokenizer", folder, "--order", "2", "--json"]
    assert main([*arguments, "--max-tokens", "1000"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == 1000
    outcome = measure(folder, ["ngram"], corpus=str(corpus_file), order=2, max_tokens=1000)
    assert outcome.metrics["ngram/ngram_tokens"] == 1000
    assert found["w_error"] == outcome.arrays["ngram/w_error"].tolist()


def test_command_with_the_greatest_only(folder, corpus_file, capsys, monkeypatch):
    monkeypatch.setattr(spectrum, "_WHOLE", 0)
    arguments = ["ngram", str(corpus_file), "--tokenizer", folder, "--order", "2", "--dimensions", "16"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["w_error"]), found["exact"]) == (16, False)
    assert 0 < found["w_error_bound"] <= 5e-5
    assert main(arguments) == 0
    assert "more than 16" in capsys.readouterr().out


@pytest.mark.parametrize("most", [None, 1, 700, 10**6])
def test_token_stream(documents, tokenizer, monkeypatch, most):
    monkeypatch.setattr(corpus, "_BATCH_CHARACTERS", 500)
    texts = [*documents, "half a pair: \ud83d"]
    whole = [tokenizer.encode(text.replace("\ud83d", "\ufffd"), add_special_tokens=False) for text in texts]
    expected = [token for tokens in whole for token in tokens][:most]
    streamed = list(token_stream(texts, tokenizer, most))
    assert np.concatenate(streamed).tolist() == expected
    assert all(tokens.dtype == np.int32 for tokens in streamed)


def test_pairs_of_a_configuration(folder, corpus_file, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("to be or not to be, that is the question " * 30)
    config = tmp_path / "pairs.yaml"
    output = tmp_path / "figure"
    values = {"corpora": [str(corpus_file), str(other)], "tokenizers": [folder], "order": 2}
    config.write_text(yaml.safe_dump({**values, "max_tokens": 2000, "output": str(output)}))
    assert main(["ngram", "--config", str(config)]) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(files) == sorted(output.iterdir())
    assert [json.loads(file.read_text())["corpus"] for file in files] == values["corpora"]
    files[0].unlink()
    before = files[1].stat().st_mtime_ns
    assert main(["ngram", "--config", str(config)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(files[0]), f"{files[1]} (there already)"]
    assert files[1].stat().st_mtime_ns == before
    # Other settings make other files.
    assert main(["ngram", "--config", str(config), "--weighted"]) == 0
    assert len(list(output.iterdir())) == 4


def test_shipped_configuration(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = read_config(Path("configs/godey-fig7.yaml"))
    assert config.order == 5
    assert set(config.corpora) <= plugins().corpora.keys()
    assert len(config.tokenizers) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--tokenizer", "T"], "nowhere is neither a file or folder here nor a known corpus"),
        (["C", "--tokenizer", "/nowhere"], "no tokenizer at /nowhere"),
        (["C", "--tokenizer", "EMPTY"], "tokenizer"),
        (["C", "--tokenizer", "T", "--order", "0"], "order=0 is not right"),
        (["C", "--tokenizer", "T", "--order", "100000"], "no document has 100000 tokens"),
        (["C", "--tokenizer", "T", "--dimensions", "0"], "dims=0 is not right"),
        (["C", "--tokenizer", "T", "--dimensions", "513"], "513 dimensions are more than the 512 tokens"),
        (["C", "--tokenizer", "T", "--max-tokens", "0"], "max_tokens=0 is not right"),
        (["C", "--tokenizer", "T", "--temporary", "/proc/none"], "cannot write to /proc/none"),
        (["C", "--tokenizer", "T", "--output", "/proc/none/x"], "cannot write /proc/none/x"),
        (["C"], "name a corpus and a tokenizer"),
        (["--tokenizer", "T"], "name a corpus and a tokenizer"),
        (["C", "--config", "x.yaml"], "'corpus' does not go with --config"),
        (["--config", "x.yaml", "--json"], "'json' does not go with --config"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml cannot be read"),
        (["--config", "BAD"], "has no 'tokenizers'"),
        (["--config", "WRONG"], "unknown setting 'ordr': did you mean order"),
    ],
)
def test_bad_input_is_one_sentence(folder, corpus_file, tmp_path, capsys, arguments, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "bad.yaml").write_text("corpora: [sample]")
    (tmp_path / "wrong.yaml").write_text("{corpora: [sample], tokenizers: [t], output: o, ordr: 3}")
    names = {"C": str(corpus_file), "T": folder, "EMPTY": str(empty)}
    names |= {"BAD": str(tmp_path / "bad.yaml"), "WRONG": str(tmp_path / "wrong.yaml")}
    assert main(["ngram", *(names.get(argument, argument) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("lmsat: error:")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": 0}, "order=0 is not right"),
        ({"order": 10**6}, "no document has 1000000 tokens"),
        ({"dims": [0]}, "dims=0 is not right"),
        ({"dims": [64, 64]}, "each once"),
        ({"dims": []}, "each once"),
        ({"dims": ["many"]}, "dims=many is not right"),
        ({"dims": [VOCAB + 1]}, "513 dimensions are more than the 512 tokens"),
    ],
)
def test_bad_settings_of_the_task(folder, corpus_file, settings, message):
    with pytest.raises(LmsatError, match=message) as caught:
        evaluate(
            "lmsat",
            ["lmsat_ngram"],
            model_args={"pretrained": folder, "device": "cpu"},
            corpus=str(corpus_file),
            **settings,
        )
    assert "\n" not in str(caught.value)
