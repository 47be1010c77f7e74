"""``lmsat size``: its JSON, its tables, and what it says of models that it cannot count."""

from __future__ import annotations

import json

import pytest
import transformers
from model_configs import mixtures, pythia
from tiny_models import configs

from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError


def test_command(tmp_path, capsys):
    pythia("70m").save_pretrained(tmp_path)
    assert main(["size", str(tmp_path), "--json", "--tokens", "299892736000", "--context", "1024"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["total"] == 70_426_624
    assert (found["non_embedding"], found["tied_head"], found["n_ctx"]) == (18_915_328, False, 1024)
    # By hand, from Table 1: embed, QKV, mask, project, feed-forward, de-embed.
    parts = [4 * 512, 2 * 6 * 512 * 3 * 512, 2 * 6 * 1024 * 512, 2 * 6 * 512**2, 2 * 6 * 8 * 512**2, 2 * 512 * 50304]
    assert list(found["forward_flops"].values()) == [*parts, 0, sum(parts)]
    assert found["kaplan_forward_flops"] == 2 * 18_915_328 + 2 * 6 * 1024 * 512
    assert (found["training_flops"], found["kaplan_training_flops"]) == (3 * sum(parts), 6 * 18_915_328)
    assert found["kaplan_parameters"] == 12 * 6 * 512**2
    run = found["training_run"]
    assert run["kaplan_flops"] == pytest.approx(6 * 18_915_328 * 299_892_736_000)
    assert run["pf_days"] == pytest.approx(3 * sum(parts) * 299_892_736_000 / 8.64e19)
    assert main(["size", str(tmp_path), "--tokens", "3e11"]) == 0
    text = capsys.readouterr().out
    assert "70,426,624" in text
    assert "-0.22%" in text
    assert "2,048" in text


@pytest.mark.parametrize(
    ("name", "first"),
    [("mamba", "MambaForCausalLM has backbone.layers.0"), ("mixtral", "MixtralForCausalLM has model.layers.0")],
)
def test_operations_are_counted_where_kaplans_formulas_do_not_hold(name, first, tmp_path, capsys, monkeypatch):
    # Without kernels of its own, Mamba's layers go token by token.
    monkeypatch.setattr("lmsat_plugin.model.flops._SHORT_TEXT", 8)
    {**configs(), **mixtures()}[name].save_pretrained(tmp_path)
    assert main(["size", str(tmp_path), "--json", "--tokens", "1e9"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["no_formula"].startswith(first)
    assert not {"shape", "kaplan_parameters", "kaplan_training_flops", "no_operations"} & found.keys()
    assert found["training_flops"] == 3 * found["forward_flops"]["total"] > 0
    assert found["training_run"]["flops"] == 1e9 * found["training_flops"]
    assert "kaplan_flops" not in found["training_run"]
    assert main(["size", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert f"No numbers of Kaplan's: {first}" in text
    assert f"{found['forward_flops']['total']:,}" in text


def test_command_says_why_there_are_no_operations(tmp_path, capsys, monkeypatch):
    def refuse(model, n_ctx):
        raise LmsatError("the operations of this cannot be counted")

    monkeypatch.setattr("lmsat_plugin.model.flops.forward_flops", refuse)
    configs()["llama"].save_pretrained(tmp_path)
    assert main(["size", str(tmp_path), "--json", "--tokens", "1e9"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["no_operations"] == "the operations of this cannot be counted"
    assert found["kaplan_training_flops"] == 6 * found["non_embedding"]
    assert found["training_run"].keys() == {"tokens", "kaplan_flops", "kaplan_pf_days"}
    assert main(["size", str(tmp_path)]) == 0
    assert "No operations: the operations of this cannot be counted." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FOLDER"], "FOLDER has no config.json: give the folder of a saved checkpoint"),
        (["FOLDER/nowhere"], "FOLDER/nowhere: there is no such folder; correct the path"),
        (["nobody/has-this"], "nobody/has-this is not in the cache"),
        (["FOLDER/t5"], "FOLDER/t5 is an encoder-decoder model: lmsat measures decoder-only models"),
        (["FOLDER/clip"], "FOLDER/clip is not a causal language model that transformers can build ("),
        (["FOLDER/garbled"], "FOLDER/garbled is not a causal language model that transformers can build ("),
        (["FOLDER/t5", "--context", "0"], "--context=0 is not a number of tokens: give 1 or more"),
        (["FOLDER/t5", "--tokens", "nan"], "--tokens=nan is not a number of tokens: give 1 or more"),
    ],
)
def test_bad_input(arguments, message, tmp_path, capsys):
    transformers.T5Config().save_pretrained(tmp_path / "t5")
    transformers.CLIPVisionConfig().save_pretrained(tmp_path / "clip")
    (tmp_path / "garbled").mkdir()
    (tmp_path / "garbled" / "config.json").write_text('{"model_type": "gpt_neox"')
    assert main(["size", *(text.replace("FOLDER", str(tmp_path)) for text in arguments)]) == 2
    error = capsys.readouterr().err
    assert message.replace("FOLDER", str(tmp_path)) in error
    assert error.count("\n") == 1
