"""Corpora from files and folders: documents as they are written, whatever separators they hold."""

from __future__ import annotations

import json

import pytest

from lmsat_plugin.text.corpora import CorpusSettings, load_corpus

TEXTS = ["two\nlines", "line\u2028separator, paragraph\u2029separator", "next\x85line, form\x0cfeed", 'quotes " and \\']


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_good_jsonl_is_read(tmp_path, ensure_ascii, end):
    """A line ends at a line feed and nowhere else: JSON may hold other separators as they are."""
    path = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"text": text, "id": "x"}, ensure_ascii=ensure_ascii) for text in TEXTS]
    path.write_bytes((end.join(lines) + end).encode())
    assert load_corpus(CorpusSettings(corpus=str(path)), {}).documents == tuple(TEXTS)


def test_good_parquet_and_folders_are_read(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"title": ["t"] * 4, "body": TEXTS}), tmp_path / "b.parquet")
    (tmp_path / "a.txt").write_text("a whole\nfile")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "d.jsonl").write_text('"only a string"\n{"body": "another", "n": 1}\n')
    read = load_corpus(CorpusSettings(corpus=str(tmp_path / "b.parquet"), text_field="body"), {})
    assert read.documents == tuple(TEXTS)
    (tmp_path / "b.parquet").unlink()
    read = load_corpus(CorpusSettings(corpus=str(tmp_path)), {})
    assert read.documents == ("a whole\nfile", "only a string", "another")
