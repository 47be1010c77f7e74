"""The files of pairs of corpora and tokenizers: another setting, another file."""

from __future__ import annotations

import json

import pytest

from lmsat_plugin.ngrams.corpus import PairsConfig, measure_pairs
from lmsat_plugin.ngrams.documents import NgramSettings


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "two.jsonl"
    rows = [{"text": "one and two and one", "other": f"something else, {i} times"} for i in range(50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_answers_for_its_own_settings_only(corpus, checkpoint, tmp_path):
    """In particular the field of the text, which its name does not show to people."""
    config = PairsConfig(
        corpora=[str(corpus)], tokenizers=[str(checkpoint("gpt_neox"))], output=tmp_path / "out", order=2
    )

    def measured(settings=None, **options):
        return list(measure_pairs(config, settings or NgramSettings(), sources={}, **options))

    [(first, new)] = measured()
    assert new
    [(second, new)] = measured(text_field="other")
    assert new
    assert second != first
    assert json.loads(first.read_text())["contexts"] != json.loads(second.read_text())["contexts"]
    assert measured() == [(first, False)]
    assert measured(text_field="other") == [(second, False)]
    [(third, new)] = measured(NgramSettings(weighted=True))
    assert new
    assert third not in (first, second)


def test_names_that_are_made_safe_stay_apart(corpus, checkpoint, tmp_path):
    """``a/b.jsonl`` and ``a__b.jsonl`` would be one file by their safe names alone."""
    (tmp_path / "a").mkdir()
    names = [tmp_path / "a/b.jsonl", tmp_path / "a__b.jsonl"]
    for name in names:
        name.write_bytes(corpus.read_bytes())
    config = PairsConfig(
        corpora=list(map(str, names)), tokenizers=[str(checkpoint("gpt_neox"))], output=tmp_path / "out", order=2
    )
    paths = [path for path, _ in measure_pairs(config, NgramSettings(), sources={})]
    assert len(set(paths)) == 2
    assert [json.loads(path.read_text())["corpus"] for path in paths] == config.corpora
