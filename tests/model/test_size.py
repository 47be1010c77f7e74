"""Counts of parameters against published ones, and operations against those that PyTorch counts."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from tiny_models import ROWS, WINDOW, configs, make_model
from torch.utils.flop_counter import FlopCounterMode

from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.anatomy import size_of
from lmsat_plugin.model.size import count_parameters, forward_flops, has_tied_head, shape_of

# Layers, width, rows of the vocabulary, non-embedding and total parameters of Pythia (Biderman et al. 2023, Table 1
# and README, to the last unit; 14m and 31m by the configurations on the Hub).
PYTHIA = {
    "14m": (6, 128, 50_304, 1_189_888, 14_067_712),
    "31m": (6, 256, 50_304, 4_739_072, 30_494_720),
    "70m": (6, 512, 50_304, 18_915_328, 70_426_624),
    "160m": (12, 768, 50_304, 85_056_000, 162_322_944),
    "410m": (24, 1024, 50_304, 302_311_424, 405_334_016),
    "1b": (16, 2048, 50_304, 805_736_448, 1_011_781_632),
    "1.4b": (24, 2048, 50_304, 1_208_602_624, 1_414_647_808),
    "2.8b": (32, 2560, 50_304, 2_517_652_480, 2_775_208_960),
    "6.9b": (32, 4096, 50_432, 6_444_163_072, 6_857_302_016),
    "12b": (36, 5120, 50_688, 11_327_027_200, 11_846_072_320),
}


def pythia(size: str) -> transformers.GPTNeoXConfig:
    layers, width, rows, _, _ = PYTHIA[size]
    return transformers.GPTNeoXConfig(
        vocab_size=rows, hidden_size=width, num_hidden_layers=layers, num_attention_heads=8,
        intermediate_size=4 * width,
    )  # fmt: skip


def empty(config) -> transformers.PreTrainedModel:
    """Return a model without weights."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return model


@pytest.mark.parametrize("size", PYTHIA)
def test_pythia_has_the_parameters_that_are_published(size):
    layers, width, rows, non_embedding, total = PYTHIA[size]
    counts = count_parameters(empty(pythia(size)))
    assert (counts.total, counts.non_embedding, counts.non_embedding_pythia) == (
        total,
        non_embedding,
        non_embedding,
    )
    assert counts.token_embedding == counts.head == rows * width
    # Of a block: four matrices d × d with biases, two of d × 4d with theirs, two norms; and the final norm.
    assert counts.attention == layers * (4 * width**2 + 4 * width)
    assert counts.mlp == layers * (8 * width**2 + 5 * width)
    assert counts.norms == layers * 4 * width + 2 * width
    assert counts.position_embedding == counts.other == 0


def test_gpt2_has_positions_and_a_tied_head():
    model = empty(transformers.GPT2Config())
    counts = count_parameters(model)
    assert has_tied_head(model)
    assert (counts.token_embedding, counts.position_embedding, counts.head) == (50257 * 768, 1024 * 768, 0)
    assert counts.total == 124_439_808
    assert counts.non_embedding == 12 * (12 * 768**2 + 13 * 768) + 2 * 768
    assert counts.non_embedding_pythia == counts.non_embedding + 1024 * 768
    # Table 1's 12 n_layer d_model², without biases and norms.
    assert shape_of(model).kaplan_parameters == 12 * 12 * 768**2


@pytest.mark.parametrize(
    ("config", "total"),
    # The sums that the models' own cards and papers give.
    [
        (
            transformers.LlamaConfig(
                vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                num_attention_heads=32,
            ),
            6_738_415_616,
        ),
        (
            transformers.OPTConfig(
                vocab_size=50272, hidden_size=768, ffn_dim=3072, num_hidden_layers=12, num_attention_heads=12
            ),
            125_239_296,
        ),
        (
            transformers.GemmaConfig(
                vocab_size=256000, hidden_size=2048, intermediate_size=16384, num_hidden_layers=18,
                num_attention_heads=8, num_key_value_heads=1, head_dim=256,
            ),
            2_506_172_416,
        ),
    ],
    ids=["llama-7b", "opt-125m", "gemma-2b"],
)  # fmt: skip
def test_other_models_have_the_parameters_that_are_published(config, total):
    assert count_parameters(empty(config)).total == total


def test_parts_are_those_of_the_modules(architecture):
    """Every parameter is in one part, and those that can be named by hand are in the right one."""
    model = empty(configs()[architecture])
    counts = count_parameters(model)
    assert counts.total == sum(p.numel() for p in model.parameters()) == model.num_parameters()
    embedding = model.get_input_embeddings().weight
    assert counts.token_embedding == embedding.numel()
    assert counts.head == (0 if has_tied_head(model) else model.get_output_embeddings().weight.numel())
    assert counts.position_embedding == {"gpt2": WINDOW * 48, "opt": (WINDOW + 2) * 48}.get(
        architecture.removesuffix("_narrow"), 0
    )
    by_hand = sum(
        p.numel()
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in ("attn", "self_attn", "attention")
        for own, p in module.named_parameters()
        if "norm" not in own
    )
    assert counts.attention == by_hand
    assert (counts.mlp == 0) == (architecture == "mamba")
    assert counts.other == {
        "gptj": ROWS,
        "opt_narrow": 2 * 24 * 48,
        "mamba": counts.non_embedding - counts.norms,
    }.get(architecture, 0)


def test_results_have_the_same_count(architecture):
    """A result file's n_params are these, of the loaded model as of the configuration."""
    counts, found = count_parameters(empty(configs()[architecture])), size_of(make_model(architecture))
    assert (found["n_params"], found["n_params_non_embedding"]) == (counts.total, counts.non_embedding)


@pytest.mark.parametrize("name", sorted(configs().keys() - {"mamba"}))
def test_flops_are_those_that_pytorch_counts(name):
    """But for what is no product of matrices (embed) and the half of the attention that Kaplan leaves out."""
    model = make_model(name)
    # PyTorch does not count a fused attention on a CPU.
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros((1, WINDOW), dtype=torch.long), use_cache=False)
    flops = forward_flops(model, WINDOW)
    assert counter.get_total_flops() == (flops.total - flops.embed + flops.attention_mask) * WINDOW
    assert counter.flop_counts["Global"][torch.ops.aten.bmm] == 2 * flops.attention_mask * WINDOW
    if name in ("gpt2", "gpt_neox"):
        per_token = 2 * 3 * 12 * 48**2 if name == "gpt2" else 2 * 3 * 48 * (4 * 48 + 2 * 96)
        assert flops.attention_qkv + flops.attention_project + flops.feed_forward == per_token
        assert flops.attention_mask == 2 * 3 * WINDOW * 48


def test_shape_is_the_configurations():
    shape = shape_of(make_model("gpt_neox"))
    assert (shape.d_model, shape.n_layer, shape.d_attn, shape.d_ff, shape.mlp_matrices) == (48, 3, 48, 96, 2)
    gated = shape_of(make_model("llama"))
    assert (gated.d_attn, gated.d_ff, gated.mlp_matrices) == (48, 96, 3)
    config = transformers.Phi3Config(
        vocab_size=ROWS, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        pad_token_id=1,
    )  # fmt: skip
    fused = shape_of(empty(config))
    assert (fused.d_attn, fused.d_ff, fused.mlp_matrices) == (48, 96, 3)


@pytest.mark.parametrize("kind", ["mamba", "mixtral"])
def test_formulas_are_refused_where_they_do_not_hold(kind):
    config = configs().get(kind) or transformers.MixtralConfig(
        vocab_size=ROWS, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4,
    )  # fmt: skip
    model = empty(config)
    assert count_parameters(model).total == sum(p.numel() for p in model.parameters())
    with pytest.raises(LmsatError, match="Kaplan's formulas do not hold: take the numbers of parameters"):
        forward_flops(model, WINDOW)


def test_command(tmp_path, capsys):
    pythia("70m").save_pretrained(tmp_path)
    assert main(["size", str(tmp_path), "--json", "--tokens", "299892736000", "--context", "1024"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"]["total"] == 70_426_624
    assert (found["non_embedding"], found["tied_head"], found["n_ctx"]) == (18_915_328, False, 1024)
    # By hand, from Table 1: embed, QKV, mask, project, feed-forward, de-embed.
    parts = [
        4 * 512,
        2 * 6 * 512 * 3 * 512,
        2 * 6 * 1024 * 512,
        2 * 6 * 512**2,
        2 * 6 * 8 * 512**2,
        2 * 512 * 50304,
    ]
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


def test_command_says_why_there_are_no_operations(tmp_path, capsys):
    configs()["mamba"].save_pretrained(tmp_path)
    assert main(["size", str(tmp_path)]) == 0
    assert "No operations: MambaForCausalLM has " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FOLDER"], "FOLDER has no config.json: give the folder of a saved checkpoint"),
        (["FOLDER/nowhere"], "FOLDER/nowhere: there is no such folder; correct the path"),
        (["nobody/has-this"], "nobody/has-this is not in the cache"),
        (["FOLDER/t5"], "FOLDER/t5 is an encoder-decoder model: lmsat measures decoder-only models"),
        (["FOLDER/clip"], "FOLDER/clip is no causal language model that transformers can build ("),
        (["FOLDER/garbled"], "FOLDER/garbled is no causal language model that transformers can build ("),
        (["FOLDER/t5", "--context", "0"], "--context=0 is no number of tokens: give 1 or more"),
        (["FOLDER/t5", "--tokens", "nan"], "--tokens=nan is no number of tokens: give 1 or more"),
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
