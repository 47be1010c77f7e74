"""What is wrong with a checkpoint or a model argument is said in one sentence, with the value and a remedy."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from evaluation import evaluate
from safetensors.torch import load_file, save_file
from tiny_models import COMMON, ROWS, WINDOW
from tiny_tokenizers import byte_tokenizer

from lmsat_plugin import measure
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
from lmsat_plugin.text import tokenization


@pytest.fixture
def folder(checkpoint, tmp_path) -> Path:
    """Return a copy of a checkpoint, to be broken."""
    return Path(shutil.copytree(checkpoint("gpt_neox"), tmp_path / "broken"))


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
DROPPED = r"lacks 1 of the model's weights, \S*layers\.1\.attention\S* among them: .*copy or download it again"


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
    refused(message.replace("FOLDER", str(folder)), model_args={"pretrained": str(folder)}, arrays=tmp_path / "arrays")


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
    # torch's own message recommends to run it.
    message = f"^the weights of {folder} are a pickle that holds more than tensors, .*safetensors((?!weights_only).)*$"
    refused(message, model_args={"pretrained": str(folder)})
    with pytest.raises(LmsatError, match=message):
        measure(folder, ["head"])
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        (
            QKV,
            "lmsat_loss",
            r"the loss of document \d+ of \S+ and \d+ more is nan: the weight \S+ \(layer 2\) is not finite",
        ),
        (
            QKV,
            "lmsat_anisotropy",
            r"the hidden states of layer 2 of 3 are not finite: the weight \S+ \(layer 2\) is not",
        ),
        (
            "embed_out.weight",
            "lmsat_head",
            r"the LM head's weight is not finite .* token 7: the weight lm_head.weight is not finite; leave",
        ),
    ],
)
def test_weights_that_are_not_numbers(folder, name, task, message, corpus_file, tmp_path):
    change_weights(lambda tensors: tensors[name].view(-1, 48)[7].fill_(torch.nan))(folder)
    arguments = {"corpus": str(corpus_file), "model_args": {"pretrained": str(folder)}}
    refused(message, [task], arrays=tmp_path / "arrays", **arguments)


def test_tokenizer_of_another_vocabulary(folder, tmp_path):
    """Of 512 tokens, for a model of fewer rows than some of them."""
    model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**{**COMMON, "vocab_size": 100}))
    model.save_pretrained(tmp_path / "model")
    model_args = {"pretrained": str(tmp_path / "model"), "tokenizer": str(folder)}
    refused(r"the tokenizer has 512 tokens and the model 100 rows: .*tokenizer=", model_args=model_args)


def test_tokenizer_far_smaller_than_the_head(folder, tmp_path, corpus_file, monkeypatch, caplog):
    """A model from scratch whose configuration is GPT-2's and whose tokenizer is its own."""
    monkeypatch.setattr(tokenization, "_warned_of", set())
    byte_tokenizer().save_pretrained(tmp_path / "bytes")
    model_args = {"pretrained": str(folder), "tokenizer": str(tmp_path / "bytes"), "prefix_token_id": 0}
    options = {"model_args": {**model_args, "device": "cpu"}, "corpus": str(corpus_file), "max_tokens": 100}
    results = evaluate("lmsat", ["lmsat_loss", "lmsat_head"], **options)
    assert results["results"]["lmsat_loss"]["loss,none"] > 0
    assert results["config"]["lmsat"]["vocab_rows"] <= 257
    assert caplog.text.count(f"tokens and the model {ROWS} rows: it is taken") == 1


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
    refused(f"max_length={length} is not a number of tokens: give", model_args=model_args, corpus=str(corpus_file))


def test_window_beyond_the_models_positions(checkpoint, corpus_file):
    """GPT-2 has no embedding for a position beyond its last."""
    model_args = {"pretrained": str(checkpoint("gpt2")), "max_length": 2 * WINDOW}
    refused(f"max_length={2 * WINDOW}.*{WINDOW}", model_args=model_args, corpus=str(corpus_file))


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


def test_measure_refuses_an_incomplete_checkpoint_too(folder, tokenizer):
    file = folder / "model.safetensors"
    weights = load_file(file)
    lost = sorted(name for name in weights if "mlp" in name)[0]
    del weights[lost]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(LmsatError, match="lacks 1 of the model's weights"):
        measure(folder, ["head"], tokenizer=tokenizer)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "head.safetensors"])
def test_a_fifo_among_the_files_keeps_nobody_waiting(checkpoint, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("gpt_neox"), folder)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    evaluator = CheckpointEvaluator(
        {"head": str(folder / name)} if name == "head.safetensors" else {}, {"device": "cpu"}
    )
    with pytest.raises(LmsatError, match=r"it is a device, not a file|tokenizer|has no weights"):
        evaluator.load(folder, name="model", revision="main")


def test_a_fifo_that_nobody_reads_is_in_nobodys_way(checkpoint, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("gpt_neox"), folder)
    os.mkfifo(folder / "model-00002.safetensors")
    evaluator = CheckpointEvaluator({}, {"device": "cpu"})
    evaluator.load(folder, name="model", revision="main")
    assert evaluator.lm is not None
