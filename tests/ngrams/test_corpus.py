"""The tokens of a corpus, a batch at a time."""

from __future__ import annotations

import numpy as np
import pytest

from lmsat_plugin.ngrams import corpus
from lmsat_plugin.ngrams.corpus import token_stream


@pytest.mark.parametrize("most", [None, 1, 700, 10**6])
def test_token_stream(documents, tokenizer, monkeypatch, most):
    monkeypatch.setattr(corpus, "_BATCH_CHARACTERS", 500)
    texts = [*documents, "half a pair: \ud83d"]
    whole = [tokenizer.encode(text.replace("\ud83d", "\ufffd"), add_special_tokens=False) for text in texts]
    expected = [token for tokens in whole for token in tokens][:most]
    streamed = list(token_stream(texts, tokenizer, most))
    assert np.concatenate(streamed).tolist() == expected
    assert all(tokens.dtype == np.int32 for tokens in streamed)
