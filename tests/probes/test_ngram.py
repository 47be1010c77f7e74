"""The n-gram probe against a dense SVD, in Python and as a task."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation import evaluate
from ngram_matrices import dense, successors_of, w_error_of
from safetensors.numpy import load_file
from tiny_models import VOCAB

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.ngrams import spectrum
from lmsat_plugin.plugins import plugins
from lmsat_plugin.text.corpora import CorpusSettings, load_corpus


@pytest.fixture
def folder(checkpoint) -> str:
    return str(checkpoint("gpt_neox"))


def tokens_of(corpus_file, tokenizer) -> list[list[int]]:
    texts = load_corpus(CorpusSettings(corpus=str(corpus_file)), plugins().corpora).documents
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


@pytest.mark.parametrize("weighted", [False, True])
def test_probe(folder, corpus_file, tokenizer, weighted):
    outcome = measure(folder, ["ngram"], corpus=str(corpus_file), order=3, dims=[1, 100, VOCAB], weighted=weighted)
    documents = tokens_of(corpus_file, tokenizer)
    expected = w_error_of(dense(documents, 3, VOCAB, weighted))
    half, negligible = (int((expected > threshold).sum()) + 1 for threshold in (0.5, 0.01))
    assert outcome.metrics == {
        **{f"lmsat_ngram/w_error_{d}": pytest.approx(expected[d - 1], abs=1e-9) for d in (1, 100, VOCAB)},
        "lmsat_ngram/contexts": len(successors_of(documents, 3)),
        "lmsat_ngram/ngram_tokens": sum(map(len, documents)),
        "lmsat_ngram/dimension_half": half,
        "lmsat_ngram/dimension_negligible": negligible,
    }
    np.testing.assert_allclose(outcome.arrays["ngram/w_error"], expected, rtol=0, atol=1e-9)
    assert outcome.arrays["ngram/singular_values"].shape == (VOCAB,)


COUNTS = ("contexts", "ngram_tokens")


def test_probe_leaves_out_what_lies_beyond(folder, corpus_file, monkeypatch):
    monkeypatch.setattr(spectrum, "_WHOLE", 0)
    outcome = measure(folder, ["ngram"], corpus=str(corpus_file), order=2, dims=[4, 16])
    assert outcome.metrics.keys() == {f"lmsat_ngram/{name}" for name in ("w_error_4", "w_error_16", *COUNTS)}
    assert outcome.arrays["ngram/w_error"].shape == (16,)


def test_task(folder, corpus_file, tmp_path):
    model_args = {"pretrained": folder, "device": "cpu", "arrays": str(tmp_path / "arrays")}
    results = evaluate("lmsat", ["lmsat_ngram"], model_args=model_args, corpus=str(corpus_file), order=2)
    row = results["results"]["lmsat_ngram"]
    [arrays] = (tmp_path / "arrays").iterdir()
    w_error = load_file(arrays)["ngram/w_error"]
    assert [row[f"w_error_{d},none"] for d in (64, 128, 256, 512)] == w_error[[63, 127, 255, 511]].tolist()


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
