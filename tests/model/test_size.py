"""Counts of parameters against published ones, and the dimensions of transformers."""

from __future__ import annotations

import pytest
import transformers
from model_configs import PYTHIA, empty, mixtures, pythia
from tiny_models import GROUPED, ROWS, WINDOW, configs, make_model

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.lm_head import is_tied
from lmsat_plugin.model.size import count_parameters, shape_of, size_of


@pytest.mark.parametrize("size", PYTHIA)
def test_pythia_has_the_parameters_that_are_published(size):
    layers, width, rows, non_embedding, total = PYTHIA[size]
    counts = count_parameters(empty(pythia(size)))
    assert (counts.total, counts.non_embedding, counts.non_embedding_pythia) == (total, non_embedding, non_embedding)
    assert counts.token_embedding == counts.head == rows * width
    # Of a block: four matrices d × d with biases, two of d × 4d with theirs, two norms; and the final norm.
    assert counts.attention == layers * (4 * width**2 + 4 * width)
    assert counts.mlp == layers * (8 * width**2 + 5 * width)
    assert counts.norms == layers * 4 * width + 2 * width
    assert counts.position_embedding == counts.other == 0


def test_gpt2_has_positions_and_a_tied_head():
    model = empty(transformers.GPT2Config())
    counts = count_parameters(model)
    assert is_tied(model)
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
    assert counts.head == (0 if is_tied(model) else model.get_output_embeddings().weight.numel())
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
    assert counts.other == {"gptj": ROWS, "opt_narrow": 2 * 24 * 48, "mamba": counts.non_embedding - counts.norms}.get(
        architecture, 0
    )


def test_results_have_the_same_count(architecture):
    """A result file's n_params are these, of the loaded model as of the configuration."""
    counts, found = count_parameters(empty(configs()[architecture])), size_of(make_model(architecture))
    assert (found["n_params"], found["n_params_non_embedding"]) == (counts.total, counts.non_embedding)


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
def test_shapes_are_refused_where_kaplans_formulas_do_not_hold(kind):
    model = empty({**configs(), **mixtures()}[kind])
    assert count_parameters(model).total == sum(p.numel() for p in model.parameters())
    with pytest.raises(LmsatError, match="Kaplan's formulas do not hold: take the counted numbers"):
        shape_of(model)


def test_multimodal_model_counts_as_its_language_model():
    text = transformers.Gemma3TextConfig(**GROUPED)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    whole = empty(transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4))
    alone = empty(text)
    assert whole.num_parameters() > alone.num_parameters()
    assert size_of(whole) == size_of(alone)
    assert shape_of(whole) == shape_of(alone)
