"""Corpora from files and folders: documents as they are written, whatever separators they hold."""

from __future__ import annotations

import ast
import json

import pytest

from lmsat_plugin.text import corpora
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


def test_the_sample_has_each_docstring_in_the_order_of_the_tree():
    """A module as it may be written: definitions within statements of every kind, and in each other."""
    tree = ast.parse(
        '"""module"""\n'
        "try:\n    def a():\n        '''a'''\n        def deep():\n            '''deep'''\n"
        "except OSError:\n    def b():\n        '''b'''\n"
        "else:\n    class C:\n        '''C'''\n        async def method(self): '''method'''\n"
        "finally:\n    def d(): '''d'''\n"
        "match 1:\n    case 1:\n        def e(): '''e'''\n"
        "for _ in ():\n    pass\nelse:\n    with open('x'):\n        if (lambda: 1)():\n            def f(): '''f'''\n"
        "def undocumented(): return [g for g in ()]\n"
    )
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    found = list(corpora._documented(tree))
    assert found == [node for node in ast.walk(tree) if isinstance(node, kinds)]
    assert {ast.get_docstring(node) for node in found} == {"module", *"abCdef", "deep", "method", None}
