"""Configurations of published models and of tiny mixtures of experts, and models of them without weights."""

from __future__ import annotations

import torch
import transformers
from tiny_models import GROUPED

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


def mixtures() -> dict[str, transformers.PretrainedConfig]:
    """Return tiny mixtures of experts."""
    routed = {**GROUPED, "num_experts_per_tok": 2}
    return {
        "mixtral": transformers.MixtralConfig(**routed, num_local_experts=4),
        # One shared expert beside those that are chosen, and a first layer without experts.
        "qwen2_moe": transformers.Qwen2MoeConfig(
            **routed, num_experts=6, moe_intermediate_size=40, shared_expert_intermediate_size=56,
            mlp_only_layers=[0],
        ),
        # Its experts all see all tokens, those of other experts as zeros.
        "llama4": transformers.Llama4TextConfig(
            **{**routed, "num_experts_per_tok": 1}, num_local_experts=4, intermediate_size_mlp=96,
        ),
    }  # fmt: skip


def empty(config) -> transformers.PreTrainedModel:
    """Return a model without weights."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return model
