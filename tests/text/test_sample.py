"""The built-in text: every docstring, and the same text from the user's cache as from the standard library."""

from __future__ import annotations

import ast

import pytest

from lmsat_plugin.text import sample


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
    found = list(sample._documented(tree))
    assert found == [node for node in ast.walk(tree) if isinstance(node, kinds)]
    assert {ast.get_docstring(node) for node in found} == {"module", *"abCdef", "deep", "method", None}


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Return a function that loads the sample as a new process would, and a list that grows with each reading."""
    monkeypatch.setenv("LMSAT_CACHE", str(tmp_path))
    read, readings = sample._read_documents, []
    monkeypatch.setattr(sample, "_read_documents", lambda: readings.append(1) or read())

    def load():
        return sample.sample_documents.__wrapped__()

    return load, readings


def test_the_sample_is_read_once_and_kept(read, tmp_path, monkeypatch):
    load, readings = read
    first = load()
    assert load() == first == sample._read_documents()
    assert len(readings) == 2  # the first, and the one of this test
    [kept] = tmp_path.glob("sample-*.json")
    whole = kept.read_bytes()
    for broken in (b"", whole[:-1], whole.replace(b"module", b"nodule", 1)):
        kept.write_bytes(broken)
        assert load() == first
        assert kept.read_bytes() == whole
    assert len(readings) == 5
    # Another version of Python, or a file that was changed.
    monkeypatch.setattr(sample, "_key", lambda: "another")
    assert load() == first
    assert len(readings) == 6


def test_a_cache_that_cannot_be_written_costs_time_alone(read, tmp_path):
    load, _ = read
    load()
    [kept] = tmp_path.glob("sample-*.json")
    kept.unlink()
    kept.mkdir()
    assert load() == sample.sample_documents()
