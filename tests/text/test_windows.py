"""Documents to tokens, tokens to windows, windows to batches: lm-eval's windows, and no token lost or counted twice."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tiny_models import ROWS, VOCAB
from tiny_tokenizers import byte_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.text.corpora import Corpus, CorpusSettings
from lmsat_plugin.text.tokenization import check_tokenizer, check_tokens, tokenize
from lmsat_plugin.text.windows import PaddedBatch, Window, make_batches, rolling_windows

PREFIX = -1


def lm_eval_windows(tokens: list[int], length: int) -> list[tuple[list[int], list[int]]]:
    pairs = get_rolling_token_windows(tokens, prefix_token=PREFIX, max_seq_len=length, context_len=1)
    return list(map(make_disjoint_window, pairs))


@given(st.integers(1, 40), st.integers(0, 200))
def test_windows_are_those_of_lm_eval(length, n_tokens):
    tokens = np.arange(n_tokens)
    windows = list(rolling_windows(7, tokens, PREFIX, length))
    # lm-eval's pair is (context, continuation): together the window, of which the continuation is scored.
    ours = [(w.tokens[: -w.scored].tolist(), w.tokens[-w.scored :].tolist()) for w in windows]
    assert ours == lm_eval_windows(tokens.tolist(), length)
    assert all(window.document == 7 and len(window) == len(window.tokens) - 1 <= length for window in windows)
    scored = [token for _, continuation in ours for token in continuation]
    assert scored == tokens.tolist()


@pytest.mark.parametrize(
    ("n_tokens", "inputs", "scored"),
    [(1, [1], [1]), (7, [7], [7]), (8, [8], [8]), (9, [8, 8], [8, 1]), (24, [8, 8, 8], [8, 8, 8])],
)
def test_windows_of_eight(n_tokens, inputs, scored):
    windows = list(rolling_windows(0, np.arange(n_tokens), PREFIX, 8))
    assert [len(window) for window in windows] == inputs
    assert [window.scored for window in windows] == scored


def some_windows(sizes: list[tuple[int, int]]) -> list[Window]:
    """Make windows of so many inputs and scored tokens, all tokens of all windows distinct."""
    starts = np.cumsum([0, *(length + 1 for length, _ in sizes)])
    return [
        Window(index, np.arange(start, start + length + 1), min(scored, length))
        for index, (start, (length, scored)) in enumerate(zip(starts, sizes, strict=False))
    ]


sizes = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=30)


@given(sizes, st.integers(1, 200))
def test_batches_hold_each_window_once_within_the_budget_longest_first(sizes, budget):
    windows = some_windows(sizes)
    batches = make_batches(windows, budget)
    flat = [window for batch in batches for window in batch]
    assert sorted(window.document for window in flat) == list(range(len(windows)))
    assert [len(window) for window in flat] == sorted(map(len, windows), reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(map(len, batch)) <= budget
    # No two neighbours would fit together with less padding than the budget allows.
    for batch, following in itertools.pairwise(batches):
        assert (len(batch) + 1) * max(map(len, [*batch, following[0]])) > budget


@given(sizes)
def test_padded_batch(sizes):
    windows = some_windows(sizes)
    batch = PaddedBatch.of(windows)
    longest = max(map(len, windows))
    assert batch.inputs_BT.shape == (len(windows), longest)
    expected = []
    for row, window in enumerate(windows):
        tokens = window.tokens.tolist()
        assert batch.inputs_BT[row].tolist() == tokens[:-1] + [0] * (longest - len(window))
        for position in range(len(window) - window.scored, len(window)):
            expected.append((row * longest + position, tokens[position + 1], window.document, position))
    columns = (batch.scored_N, batch.targets_N, batch.documents_N, batch.positions_N)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected
    # Each target is the token after the input that predicts it.
    assert torch.equal(batch.inputs_BT.flatten()[batch.scored_N] + 1, batch.targets_N)


def tokenized(documents, tokenizer, limit=None, **settings):
    settings = CorpusSettings(corpus="test", **settings)
    return tokenize(Corpus("test", tuple(documents)), settings, tokenizer, prefix=0, window=64, limit=limit)


def bytes_of(tokenizer, tokens) -> int:
    """Return the number of bytes that byte-level tokens spell: one for each letter of a token's name."""
    return sum(map(len, tokenizer.convert_ids_to_tokens(tokens.tolist())))


def test_whole_corpus(documents, tokenizer):
    corpus = tokenized(documents, tokenizer, max_tokens=None)
    # Labels are like "3 of test".
    seen = {int(document.label.split()[0]): document for document in corpus.documents}
    assert sorted(seen) == [index for index, text in enumerate(documents) if text]
    for index, document in seen.items():
        assert tokenizer.decode(document.tokens) == documents[index]
        assert document.n_bytes == len(documents[index].encode()) == bytes_of(tokenizer, document.tokens)
    assert corpus.n_bytes == len("".join(documents).encode()) == corpus.document_bytes().sum()
    found = corpus.provenance
    assert (found["documents"], found["documents_empty"]) == (len(seen), documents.count(""))
    assert found["documents_available"] == len(documents)
    assert (found["tokens"], found["bytes"]) == (corpus.n_tokens, corpus.n_bytes)
    assert sum(window.scored for window in corpus.windows) == corpus.n_tokens


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 63, 64, 65, 1000, 2500])
def test_max_tokens_is_exact(documents, tokenizer, max_tokens):
    corpus = tokenized(documents, tokenizer, max_tokens=max_tokens)
    assert corpus.n_tokens == max_tokens
    whole = tokenized(documents, tokenizer, max_tokens=None)
    for document, complete in zip(corpus.documents, whole.documents, strict=False):
        assert document.label == complete.label
        assert document.tokens.tolist() == complete.tokens[: len(document.tokens)].tolist()


def test_bytes_of_a_truncated_document_are_those_of_its_tokens(tokenizer):
    """At every place, also inside a character of several bytes, where the document may end before it."""
    text = "naïve café, 你好, Ωμέγα — 🙂 " * 2
    whole = tokenizer.encode(text)
    found, expected = [], []
    for max_tokens in range(1, len(whole) + 1):
        [document] = tokenized([text], tokenizer, max_tokens=max_tokens).documents
        assert document.tokens.tolist() == whole[: len(document.tokens)]
        assert max_tokens - 4 < len(document.tokens) <= max_tokens
        found.append(document.n_bytes)
        expected.append(bytes_of(tokenizer, document.tokens))
    assert found == expected


def test_document_that_is_cut_to_nothing_is_not_counted_as_empty():
    """Of two documents of two characters, three tokens each, four tokens are wanted."""
    corpus = tokenized(["你好", "你好", ""], byte_tokenizer(), max_tokens=4)
    assert len(corpus.documents) == 1
    assert corpus.n_tokens in (3, 4)
    assert corpus.provenance["documents_empty"] <= 1


def test_beginning_of_a_long_document_is_that_of_the_whole(tokenizer):
    """Only the beginning is tokenised: also where tokens spell so much that it holds too few of them."""
    text = "word and café " * 5000
    whole = tokenizer.encode(text)
    for max_tokens in (1, 10, 700):
        [document] = tokenized([text], tokenizer, max_tokens=max_tokens).documents
        assert document.tokens.tolist() == whole[:max_tokens]
    core = Tokenizer(models.WordLevel({"x" * 900: 0, "[UNK]": 1}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    wide = transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")
    [document] = tokenized([" ".join(["x" * 900] * 20)], wide, max_tokens=10).documents
    assert document.tokens.tolist() == [0] * 10
    assert document.n_bytes == 10 * 901 - 1


def test_limit_counts_documents_that_have_text(documents, tokenizer):
    for limit in (1, 5, len(documents) - 1, len(documents)):
        corpus = tokenized(["", *documents], tokenizer, limit=limit, max_tokens=None)
        assert len(corpus.documents) == min(limit, len(documents) - 1)
        assert corpus.provenance["limit"] == limit


def test_seed_orders_the_documents(documents, tokenizer):
    def labels(seed):
        corpus = tokenized(documents, tokenizer, seed=seed, max_tokens=None)
        return [document.label for document in corpus.documents]

    assert labels(1) == labels(1) != labels(2)
    assert sorted(labels(1)) == sorted(labels(2))


def test_hash_identifies_the_measured_text(documents, tokenizer):
    def digest(texts, with_tokenizer=tokenizer, **settings):
        return tokenized(texts, with_tokenizer, **settings).provenance["sha256"]

    reference = digest(documents, max_tokens=None)
    assert digest(list(documents), max_tokens=None) == reference
    for changed in (
        digest([*documents[:-1], documents[-1] + "!"], max_tokens=None),
        digest(documents[1:], max_tokens=None),
        digest(documents, max_tokens=100),
        digest(documents, max_tokens=None, seed=1),
    ):
        assert changed != reference
    # The same letters in other documents are another corpus: each document begins with the prefix token.
    assert len({digest(texts) for texts in (["aaaa"], ["aa", "aa"], ["a", "a", "aa"])}) == 3
    # Whole documents are the same text whatever cuts them into tokens.
    other = byte_tokenizer()
    assert digest(documents, other, max_tokens=None) == reference
    hashes = {tokenized(documents, one).provenance["tokenizer_sha256"] for one in (tokenizer, other)}
    assert len(hashes) == 2


def test_special_tokens_are_not_added(tokenizer):
    from tokenizers.processors import TemplateProcessing

    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    core.post_processor = TemplateProcessing(single="<|endoftext|> $0", special_tokens=[("<|endoftext|>", 0)])
    adding = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<|endoftext|>")
    assert adding.encode("hello")[0] == 0
    [document] = tokenized(["hello"], adding).documents
    assert 0 not in document.tokens


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_corpus_without_text(texts, tokenizer):
    message = rf"corpus=test has no text \({len(texts)} documents, all empty\): give"
    with pytest.raises(LmsatError, match=message):
        tokenized(texts, tokenizer)


@pytest.mark.parametrize("rows", [VOCAB, ROWS, 2 * VOCAB])
def test_tokenizer_of_the_model_is_taken(tokenizer, rows):
    check_tokenizer(tokenizer, rows, "here")


@pytest.mark.parametrize("rows", [10, 64, 2 * VOCAB + 2, 50_000])
def test_tokenizer_of_another_vocabulary_is_refused(tokenizer, rows):
    message = rf"the tokenizer has {VOCAB} tokens and the model {rows} rows: .*tokenizer="
    with pytest.raises(LmsatError, match=message):
        check_tokenizer(tokenizer, rows, "here")


def test_token_without_a_row_is_refused(documents, tokenizer):
    """A vocabulary a little too large passes the first check: the corpus' own tokens decide."""
    corpus = tokenized(documents, tokenizer)
    largest = max(int(document.tokens.max()) for document in corpus.documents)
    check_tokens(corpus, largest + 1)
    with pytest.raises(LmsatError, match=rf"gives token {largest} but the model has only {largest} rows"):
        check_tokens(corpus, largest)


def test_folder_without_tokenizer_is_refused(checkpoint, tmp_path):
    """transformers 5 makes an empty tokenizer from a configuration alone."""
    (tmp_path / "config.json").write_text((checkpoint("gpt_neox") / "config.json").read_text())
    made = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(LmsatError, match=f"no working tokenizer in {tmp_path}: .*tokenizer="):
        check_tokenizer(made, ROWS, str(tmp_path))


def test_tokenizer_that_knows_no_word_is_refused():
    core = Tokenizer(models.WordLevel({"[UNK]": 0, "xyz": 1}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    useless = transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")
    with pytest.raises(LmsatError, match="no working tokenizer in here"):
        check_tokenizer(useless, 2, "here")


def test_settings_are_recorded(documents, tokenizer):
    found = tokenized(documents, tokenizer, max_tokens=99, seed=3).provenance
    expected = {"corpus": "test", "max_tokens": 99, "seed": 3, "window": 64, "prefix_token": 0}
    assert {key: found[key] for key in expected} == expected
    assert json.loads(json.dumps(found)) == found
