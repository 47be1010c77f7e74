"""Text to train on is apart from what is measured."""

from __future__ import annotations

import pytest
from sample_texts import sample_texts
from tiny_models import WINDOW

from lmsat_plugin.measurement.training_stream import MeasuredText, shared_text, training_text
from lmsat_plugin.text.corpora import Corpus, CorpusSettings
from lmsat_plugin.text.tokenization import tokenize


@pytest.fixture
def texts():
    return sample_texts()


def test_training_text_is_apart_from_what_is_measured(tokenizer, texts):
    documents = Corpus("documents", (*texts, texts[0]))
    settings = CorpusSettings(corpus="documents", max_tokens=1000, seed=3)
    measured = tokenize(documents, settings, tokenizer, prefix=0, window=WINDOW)
    assert measured.documents[-1].n_bytes < len(documents.documents[measured.documents[-1].source].encode())
    text = MeasuredText(tokenized=measured, read=lambda: documents, settings=settings, tokenizer=tokenizer, sources={})
    found = training_text(text, 50_000, None, least=1000)
    seen = {documents.documents[document.source] for document in measured.documents}
    rest = "".join(tokenizer.decode(document.tokens) for document in found.documents)
    assert not any(text in rest for text in seen)
    cut = measured.documents[-1]
    remainder = documents.documents[cut.source].encode()[cut.n_bytes :].decode()
    assert remainder in rest, "what was cut off is there to train on"
    assert shared_text(measured, found) < 0.05


def test_shared_text_is_found_wherever_it_begins(tokenizer, texts):
    settings = CorpusSettings(corpus="documents", max_tokens=None)

    def tokenized(*parts):
        return tokenize(Corpus("documents", parts), settings, tokenizer, prefix=0, window=WINDOW)

    one = tokenized(texts[0], texts[1])
    assert shared_text(one, tokenized("A heading. " + texts[0] + texts[1])) > 0.9
    assert 0.2 < shared_text(one, tokenized(texts[0], texts[2])) < 0.8
    assert shared_text(one, tokenized(texts[3], texts[4])) < 0.1
    assert shared_text(tokenized("short"), tokenized("short")) == 0
