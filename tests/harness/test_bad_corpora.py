"""What is wrong with a corpus or its settings is said in one sentence, with the value and a remedy."""

from __future__ import annotations

import pytest
from evaluation import evaluate

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.model import SaturationLM


@pytest.fixture(scope="module")
def lm(checkpoint):
    return SaturationLM(pretrained=str(checkpoint("gpt_neox")), device="cpu")


def corpus_refused(lm, message: str, corpus, **metadata) -> None:
    with pytest.raises(LmsatError, match=message.replace("CORPUS", str(corpus))) as caught:
        evaluate(lm, ["lmsat_loss"], corpus=str(corpus), **metadata)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", r"corpus=CORPUS has no text \(1 documents, all empty\): give one with text"),
        ("empty.jsonl", b"\n\n", r"corpus=CORPUS has no text \(0 documents, all empty\)"),
        ("blank.jsonl", b'{"text": ""}\n""\n', r"corpus=CORPUS has no text \(2 documents, all empty\)"),
        ("latin1.txt", b"caf\xe9", r"corpus file CORPUS is not UTF-8 text \(byte 3\): give a text file"),
        ("zero.bin", b"ab\0cd", r"corpus file CORPUS is binary \(a zero byte at 2\): give a text file"),
        ("broken.jsonl", b'{"text": "a"}\n\n{"text": \n', r"line 3 of CORPUS is not JSON .*: correct or remove it"),
        ("list.jsonl", b"[1]\n", r"line 1 of CORPUS has no text field 'text' \(its text fields: none\): .*text_field="),
        (
            "two.jsonl", b'{"title": "a", "body": "b", "id": 3}\n',
            r"line 1 of CORPUS has no text field 'text' \(its text fields: title, body\): name one with text_field=",
        ),
        ("broken.parquet", b"PAR1 and no more", r"corpus file CORPUS is not a readable parquet file \(.*\)"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value[:14] else "",
)  # fmt: skip
def test_bad_corpus(lm, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    corpus_refused(lm, message, path)


def test_folder_without_text(lm, tmp_path):
    (tmp_path / "text.md").write_text("not looked for")
    corpus_refused(lm, r"corpus=CORPUS is a folder without .txt, .jsonl, .parquet files: give one that has", tmp_path)


def test_unknown_corpus(lm):
    message = r"corpus=CORPUS is neither a file or folder here nor a known corpus \(.*sample.*\): correct the name"
    corpus_refused(lm, message, "wikitxt")


def test_named_corpus_without_the_network(lm):
    """The Hub is out of reach for the tests."""
    corpus_refused(lm, r"corpus=CORPUS could not be fetched .*: connect to the network, or give corpus=FILE", "imdb")


def test_field_that_a_corpus_lacks(lm, tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "a", "body": "b"}\n')
    corpus_refused(lm, r"line 1 of CORPUS has no text field 'title' .*text, body.*", path, text_field="title")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_tokens": 0}, r"max_tokens=0 is not right \(.*greater than 0\): correct it"),
        ({"max_tokens": "x"}, r"max_tokens=x is not right \(.*integer.*\): correct it"),
        ({"seed": "x"}, r"seed=x is not right \(.*integer.*\): correct it"),
        ({"max_tokns": 5}, r"^unknown setting 'max_tokns': did you mean max_tokens\?$"),
    ],
)
def test_wrong_setting(lm, corpus_file, setting, message):
    corpus_refused(lm, message, corpus_file, **setting)


def test_half_a_surrogate_is_measured_or_named(lm, tmp_path):
    """Valid JSON that is no valid Unicode, as crawled text has it."""
    path = tmp_path / "crawl.jsonl"
    path.write_text('{"text": "fine"}\n{"text": "half \\ud83d of it"}\n')
    try:
        found = str(evaluate(lm, ["lmsat_loss"], corpus=str(path))["config"]["lmsat"]["corpus"]["documents"])
    except LmsatError as error:
        found = str(error)
    assert found == "2" or str(path) in found
