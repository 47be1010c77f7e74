"""``lmsat ngram``: one corpus, the pairs of a configuration, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tiny_models import VOCAB

from lmsat_plugin import measure
from lmsat_plugin.cli.main import main
from lmsat_plugin.ngrams import spectrum
from lmsat_plugin.ngrams.corpus import PairsConfig
from lmsat_plugin.plugins import plugins
from lmsat_plugin.yaml_files import read_config


@pytest.fixture
def folder(checkpoint) -> str:
    return str(checkpoint("gpt_neox"))


def test_command_agrees_with_the_probe(folder, corpus_file, capsys, tmp_path):
    arguments = ["ngram", str(corpus_file), "--tokenizer", folder, "--order", "3", "--weighted"]
    output = tmp_path / "found.json"
    assert main([*arguments, "--json", "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip("\n") == output.read_text()
    found = json.loads(printed)
    outcome = measure(folder, ["ngram"], corpus=str(corpus_file), order=3, weighted=True, max_tokens=None)
    for name in ("w_error", "singular_values"):
        assert found.pop(name) == outcome.arrays[f"ngram/{name}"].tolist()
    assert found == {
        "corpus": str(corpus_file),
        "tokenizer": folder,
        "order": 3,
        "weighted": True,
        "contexts": outcome.metrics["lmsat_ngram/contexts"],
        "tokens": outcome.metrics["lmsat_ngram/ngram_tokens"],
        "vocab_size": VOCAB,
        "exact": True,
        "w_error_bound": 0.0,
    }
    assert main(arguments) == 0
    table = capsys.readouterr().out
    for d in (1, 2, 64, 512):
        assert f"{outcome.arrays['ngram/w_error'][d - 1]:.4g}" in table
    assert f"{outcome.metrics['lmsat_ngram/dimension_half']:,}" in table


def test_command_stops_after_so_many_tokens(folder, corpus_file, capsys):
    arguments = ["ngram", str(corpus_file), "--tokenizer", folder, "--order", "2", "--json"]
    assert main([*arguments, "--max-tokens", "1000"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == 1000
    outcome = measure(folder, ["ngram"], corpus=str(corpus_file), order=2, max_tokens=1000)
    assert outcome.metrics["lmsat_ngram/ngram_tokens"] == 1000
    assert found["w_error"] == outcome.arrays["ngram/w_error"].tolist()


def test_command_with_the_greatest_only(folder, corpus_file, capsys, monkeypatch):
    monkeypatch.setattr(spectrum, "_WHOLE", 0)
    arguments = ["ngram", str(corpus_file), "--tokenizer", folder, "--order", "2", "--dimensions", "16"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["w_error"]), found["exact"]) == (16, False)
    assert 0 < found["w_error_bound"] <= 5e-5
    assert main(arguments) == 0
    assert "more than 16" in capsys.readouterr().out


def test_pairs_of_a_configuration(folder, corpus_file, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("to be or not to be, that is the question " * 30)
    config = tmp_path / "pairs.yaml"
    output = tmp_path / "figure"
    values = {"corpora": [str(corpus_file), str(other)], "tokenizers": [folder], "order": 2}
    config.write_text(yaml.safe_dump({**values, "max_tokens": 2000, "output": str(output)}))
    assert main(["ngram", "--config", str(config)]) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(files) == sorted(output.iterdir())
    assert [json.loads(file.read_text())["corpus"] for file in files] == values["corpora"]
    files[0].unlink()
    before = files[1].stat().st_mtime_ns
    assert main(["ngram", "--config", str(config)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(files[0]), f"{files[1]} (there already)"]
    assert files[1].stat().st_mtime_ns == before
    # Other settings make other files.
    assert main(["ngram", "--config", str(config), "--weighted"]) == 0
    assert len(list(output.iterdir())) == 4


def test_shipped_configuration(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = read_config(Path("configs/godey-fig7.yaml"), PairsConfig)
    assert config.order == 5
    assert set(config.corpora) <= plugins().corpora.keys()
    assert len(config.tokenizers) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--tokenizer", "T"], "nowhere is neither a file or folder here nor a known corpus"),
        (["C", "--tokenizer", "/nowhere"], "no tokenizer at /nowhere"),
        (["C", "--tokenizer", "EMPTY"], "tokenizer"),
        (["C", "--tokenizer", "T", "--order", "0"], "order=0 is not right"),
        (["C", "--tokenizer", "T", "--order", "100000"], "no document has 100000 tokens"),
        (["C", "--tokenizer", "T", "--dimensions", "0"], "dims=0 is not right"),
        (["C", "--tokenizer", "T", "--dimensions", "513"], "513 dimensions are more than the 512 tokens"),
        (["C", "--tokenizer", "T", "--max-tokens", "0"], "max_tokens=0 is not right"),
        (["C", "--tokenizer", "T", "--temporary", "/proc/none"], "cannot write to /proc/none"),
        (["C", "--tokenizer", "T", "--output", "/proc/none/x"], "cannot write /proc/none/x"),
        (["C"], "name a corpus and a tokenizer"),
        (["--tokenizer", "T"], "name a corpus and a tokenizer"),
        (["C", "--config", "x.yaml"], "'corpus' does not go with --config"),
        (["--config", "x.yaml", "--json"], "'json' does not go with --config"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml cannot be read"),
        (["--config", "BAD"], "the key 'tokenizers' is missing: add it"),
        (["--config", "WRONG"], "unknown key 'ordr': did you mean 'order'?"),
    ],
)
def test_bad_input_is_one_sentence(folder, corpus_file, tmp_path, capsys, arguments, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "bad.yaml").write_text("corpora: [sample]")
    (tmp_path / "wrong.yaml").write_text("{corpora: [sample], tokenizers: [t], output: o, ordr: 3}")
    names = {"C": str(corpus_file), "T": folder, "EMPTY": str(empty)}
    names |= {"BAD": str(tmp_path / "bad.yaml"), "WRONG": str(tmp_path / "wrong.yaml")}
    assert main(["ngram", *(names.get(argument, argument) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("lmsat: error:")
    assert error.count("\n") == 1
