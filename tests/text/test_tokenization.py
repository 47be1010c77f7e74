"""Documents to tokens: exact numbers of tokens and bytes, what identifies them, and tokenizers that do not fit."""

from __future__ import annotations

import json

import pytest
import transformers
from tiny_models import ROWS, VOCAB
from tiny_tokenizers import byte_tokenizer, prepending_bos
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.text import tokenization
from lmsat_plugin.text.corpora import Corpus, CorpusSettings
from lmsat_plugin.text.tokenization import check_tokenizer, check_tokens, prepends_bos, tokenize


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


@pytest.mark.parametrize(
    ("texts", "max_tokens", "needed"),
    [(["你好"], 1, 3), (["🙂🙂"], 3, 4), (["", "é"], 1, 2), (["你好", "é" * 9], 1, None)],
)
def test_max_tokens_below_the_first_character_is_named(texts, max_tokens, needed):
    with pytest.raises(LmsatError, match=rf"max_tokens={max_tokens} is too few .*: set it to at least ") as caught:
        tokenized(texts, byte_tokenizer(), max_tokens=max_tokens)
    if needed is not None:
        assert f"takes {needed} tokens: set it to at least {needed}" in str(caught.value)
        assert tokenized(texts, byte_tokenizer(), max_tokens=needed).n_tokens == needed


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_text_without_a_token_is_refused(texts):
    with pytest.raises(LmsatError, match="has no text"):
        tokenized(texts, byte_tokenizer())


def test_prefix_is_resolved_by_what_the_tokenizer_does(tokenizer, tmp_path):
    def policy(one, **settings):
        return tokenized(["a text"], one, **settings).provenance["prefix"]

    with_bos = prepending_bos(tokenizer)
    assert (policy(with_bos), policy(tokenizer)) == ("window", "document")
    assert [policy(with_bos, prefix=asked) for asked in ("window", "document")] == ["window", "document"]
    assert [policy(tokenizer, prefix=asked) for asked in ("window", "document")] == ["window", "document"]
    # It stays so when it is saved, and neither a flag nor another special token makes it so.
    with_bos.save_pretrained(tmp_path)
    assert prepends_bos(transformers.AutoTokenizer.from_pretrained(tmp_path))
    with_flag = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|endoftext|>", add_bos_token=True
    )
    assert prepends_bos(with_flag) == (with_flag.encode("a")[0] == with_flag.bos_token_id)
    assert not prepends_bos(byte_tokenizer())
    with_bos.bos_token = "<|pad|>"
    assert policy(with_bos) == "document"


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


@pytest.mark.parametrize("rows", [2 * VOCAB + 2, 50_257])
def test_tokenizer_far_smaller_than_the_head_is_taken_with_one_warning(tokenizer, rows, caplog, monkeypatch):
    monkeypatch.setattr(tokenization, "_warned_of", set())
    for _ in range(2):
        check_tokenizer(tokenizer, rows, "here")
    [record] = caplog.records
    assert f"the tokenizer in here has {VOCAB} tokens and the model {rows} rows" in record.getMessage()
    assert "tokenizer=FOLDER_OR_NAME" in record.getMessage()


def test_document_whose_first_character_is_more_than_max_tokens(tokenizer):
    with pytest.raises(LmsatError, match=r"max_tokens=1 is too few for the first character of document 0 of"):
        tokenized(["жж"], tokenizer, max_tokens=1)
    assert tokenized(["жж"], tokenizer, max_tokens=2).n_bytes == 2


@pytest.mark.parametrize("rows", [10, 64])
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
