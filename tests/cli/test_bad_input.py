"""What is wrong with a checkpoint, a corpus or a setting is said in one sentence, with the value and a remedy."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from evaluation import evaluate
from safetensors.torch import load_file, save_file
from tiny_models import ROWS, WINDOW
from tiny_tokenizers import byte_tokenizer

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.text.corpora import CorpusSettings, load_corpus


@pytest.fixture
def folder(checkpoint, tmp_path) -> Path:
    """Return a copy of a checkpoint, to be broken."""
    return Path(shutil.copytree(checkpoint("gpt_neox"), tmp_path / "broken"))


@pytest.fixture(scope="module")
def lm(checkpoint):
    return SaturationLM(pretrained=str(checkpoint("gpt_neox")), device="cpu")


def refused(message: str, tasks=("lmsat_loss",), arrays: Path | None = None, **arguments) -> None:
    """Check that a run ends in one sentence that matches, and leaves nothing in the folder of arrays."""
    model_args = {"device": "cpu", **arguments.pop("model_args")}
    if arrays is not None:
        model_args["arrays"] = str(arrays)
    with pytest.raises(LmsatError, match=message) as caught:
        evaluate("lmsat", list(tasks), model_args=model_args, **arguments)
    assert "\n" not in str(caught.value)
    assert arrays is None or list(arrays.iterdir()) == []


def remove(*patterns):
    def breakage(folder):
        for path in [path for pattern in patterns for path in folder.glob(pattern)]:
            path.unlink()

    return breakage


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_weights(change):
    def breakage(folder):
        path = folder / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, {"format": "pt"})

    return breakage


def set_config(**values):
    def breakage(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return breakage


def garble_config(folder):
    (folder / "config.json").write_text('{"model_type": "gpt_neox"')


QKV = "gpt_neox.layers.1.attention.query_key_value.weight"
DROPPED = (
    r"lacks 1 of the model's weights, \S*layers\.1\.attention\S* among them: .*copy or download it again"
)


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (shutil.rmtree, r"pretrained=FOLDER: there is no such folder; correct the path"),
        (remove("config.json"), r"pretrained=FOLDER has no config.json: give"),
        (remove("*.safetensors"), r"pretrained=FOLDER has no weights .*: give a whole checkpoint"),
        (remove("tokenizer*", "special_tokens_map.json"), r"no working tokenizer in FOLDER: name one with tokenizer="),
        (cut, r"FOLDER/model.safetensors is cut short .*: copy or download it again"),
        (change_weights(lambda tensors: tensors.pop(QKV)), DROPPED),
        (
            change_weights(lambda tensors: tensors.update({QKV: torch.zeros(144, 40)})),
            r"FOLDER has \S*layers.1.attention\S* of shape \(144, 40\) .* \(144, 48\): ",
        ),
        (set_config(num_hidden_layers=4), r"FOLDER lacks \d+ of the model's weights, .*: the checkpoint is incomplete"),
        (set_config(model_type="unheard_of"), r"cannot load the model FOLDER \(.*unheard_of.*\): correct"),
        (garble_config, r"cannot load the model FOLDER \(.*config.*\): correct"),
    ],
    ids=[
        *("missing folder", "no config", "no weights", "no tokenizer", "cut weights", "missing tensor"),
        *("misshapen tensor", "missing layer", "unknown type", "garbled config"),
    ],
)  # fmt: skip
def test_broken_checkpoint(folder, breakage, message, tmp_path):
    breakage(folder)
    refused(
        message.replace("FOLDER", str(folder)),
        model_args={"pretrained": str(folder)},
        arrays=tmp_path / "arrays",
    )


def test_file_in_the_place_of_a_folder(folder):
    path = folder / "model.safetensors"
    refused(f"pretrained={path} is a file: give the folder", model_args={"pretrained": str(path)})


def test_weights_that_are_code_are_not_run(folder, tmp_path):
    """A pickle that would make a file when it is loaded."""
    (folder / "model.safetensors").unlink()
    trap = tmp_path / "trap"

    class Code:
        def __reduce__(self):
            return Path.touch, (trap,)

    torch.save({QKV: Code()}, folder / "pytorch_model.bin")
    refused(f"cannot load the model {folder} ", model_args={"pretrained": str(folder)})
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        (
            QKV,
            "lmsat_loss",
            r"the loss of document \d+ of \S+ and \d+ more is nan: .*dtype=float32 or leave it out",
        ),
        (
            QKV,
            "lmsat_anisotropy",
            r"the hidden states of layer 2 of 3 are not finite or zero: .*leave it out",
        ),
        ("embed_out.weight", "lmsat_head", r"the LM head's weight is not finite .* token 7: .*leave it out"),
    ],
)
def test_weights_that_are_not_numbers(folder, name, task, message, corpus_file, tmp_path):
    change_weights(lambda tensors: tensors[name].view(-1, 48)[7].fill_(torch.nan))(folder)
    arguments = {"corpus": str(corpus_file), "model_args": {"pretrained": str(folder)}}
    refused(message, [task], arrays=tmp_path / "arrays", **arguments)


def test_tokenizer_of_another_vocabulary(folder, tmp_path):
    """Of 256 tokens, to which lm-eval adds one for padding."""
    byte_tokenizer().save_pretrained(tmp_path / "bytes")
    model_args = {"pretrained": str(folder), "tokenizer": str(tmp_path / "bytes")}
    refused(
        rf"the tokenizer has 25[67] tokens and the model {ROWS} rows: .*tokenizer=", model_args=model_args
    )


def test_encoder_decoder_model(tokenizer, corpus_file):
    sizes = {"d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_heads": 4}
    config = transformers.T5Config(vocab_size=ROWS, **sizes, decoder_start_token_id=1)
    model = transformers.T5ForConditionalGeneration(config)
    refused("decoder-only", model_args={"pretrained": model, "tokenizer": tokenizer}, corpus=str(corpus_file))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"head_rank": 0}, "head_rank=0 is not a rank of this head: give a whole number from 1 to 48"),
        ({"dtype": "float33"}, r"cannot load the model FOLDER .*float33.*: correct"),
        ({"revison": "main"}, r"cannot load the model FOLDER .*revison.*: correct"),
    ],
)
def test_wrong_model_argument(folder, argument, message):
    refused(message.replace("FOLDER", str(folder)), model_args={"pretrained": str(folder), **argument})


@pytest.mark.parametrize("prefix", [-1, ROWS])
def test_prefix_token_that_the_model_lacks(folder, prefix, corpus_file):
    model_args = {"pretrained": str(folder), "prefix_token_id": prefix}
    refused(f"{prefix}.*{ROWS} rows", model_args=model_args, corpus=str(corpus_file))


@pytest.mark.parametrize("length", [0, -5])
def test_window_that_is_none(folder, length, corpus_file):
    model_args = {"pretrained": str(folder), "max_length": length}
    refused(
        f"max_length={length} is not a number of tokens: give", model_args=model_args, corpus=str(corpus_file)
    )


def test_window_beyond_the_models_positions(checkpoint, corpus_file):
    """GPT-2 has no embedding for a position beyond its last."""
    model_args = {"pretrained": str(checkpoint("gpt2")), "max_length": 2 * WINDOW}
    refused(f"max_length={2 * WINDOW}.*{WINDOW}", model_args=model_args, corpus=str(corpus_file))


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
    corpus_refused(
        lm, r"corpus=CORPUS is a folder without .txt, .jsonl, .parquet files: give one that has", tmp_path
    )


def test_unknown_corpus(lm):
    message = (
        r"corpus=CORPUS is neither a file or folder here nor a known corpus \(.*sample.*\): correct the name"
    )
    corpus_refused(lm, message, "wikitxt")


def test_named_corpus_without_the_network(lm):
    """The Hub is out of reach for the tests."""
    corpus_refused(
        lm, r"corpus=CORPUS could not be fetched .*: connect to the network, or give corpus=FILE", "imdb"
    )


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


TEXTS = [
    "two\nlines",
    "line\u2028separator, paragraph\u2029separator",
    "next\x85line, form\x0cfeed",
    'quotes " and \\',
]


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


def test_half_a_surrogate_is_measured_or_named(lm, tmp_path):
    """Valid JSON that is no valid Unicode, as crawled text has it."""
    path = tmp_path / "crawl.jsonl"
    path.write_text('{"text": "fine"}\n{"text": "half \\ud83d of it"}\n')
    try:
        found = str(evaluate(lm, ["lmsat_loss"], corpus=str(path))["config"]["lmsat"]["corpus"]["documents"])
    except LmsatError as error:
        found = str(error)
    assert found == "2" or str(path) in found


def test_arrays_where_no_folder_can_be(folder, tmp_path):
    (tmp_path / "file").touch()
    model_args = {"pretrained": str(folder), "arrays": str(tmp_path / "file" / "arrays")}
    refused(f"cannot write to {tmp_path}/file/arrays .*: choose another folder", model_args=model_args)


def test_full_disk_costs_the_arrays_only(folder, tmp_path, monkeypatch, caplog):
    arrays = tmp_path / "arrays"
    arrays.mkdir()

    def full(descriptor):
        assert list(arrays.iterdir()), "the file should be under way"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    model_args = {"pretrained": str(folder), "device": "cpu", "arrays": str(arrays)}
    results = evaluate("lmsat", ["lmsat_head"], model_args=model_args)
    assert results["results"]["lmsat_head"]["stable_rank,none"] > 1
    assert "arrays" not in results["config"]["lmsat"]
    assert "No space left on device" in caplog.text
    assert list(arrays.iterdir()) == []


@pytest.mark.parametrize(
    ("breakage", "metadata", "words"),
    [
        (cut, "max_tokens=100", ["broken/model.safetensors", "copy or download it again"]),
        (None, "max_token=100", ["unknown setting 'max_token'", "did you mean max_tokens?"]),
    ],
    ids=["cut weights", "misspelt metadata"],
)
def test_command_says_one_sentence(breakage, metadata, words, folder, tmp_path):
    if breakage is not None:
        breakage(folder)
    arrays = tmp_path / "arrays"
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "lmsat", "--device", "cpu"),
        *("--model_args", f"pretrained={folder},arrays={arrays}", "--tasks", "lmsat_loss"),
        *("--metadata", metadata, "--output_path", str(tmp_path / "out")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode > 0
    assert "Traceback" not in done.stderr + done.stdout
    [line] = [line for line in done.stderr.splitlines() if line.startswith("lmsat")]
    assert all(word in line for word in words), line
    assert not list(arrays.glob("*"))
    assert not list((tmp_path / "out").rglob("*.json"))


def test_measure_refuses_an_incomplete_checkpoint_too(folder, tokenizer):
    from safetensors.torch import load_file, save_file

    from lmsat_plugin import measure

    file = folder / "model.safetensors"
    weights = load_file(file)
    lost = sorted(name for name in weights if "mlp" in name)[0]
    del weights[lost]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(LmsatError, match="lacks 1 of the model's weights"):
        measure(folder, ["head"], tokenizer=tokenizer)
