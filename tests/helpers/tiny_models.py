"""Tiny random models of many architectures."""

from __future__ import annotations

import torch
import transformers

VOCAB = 512
# As Pythia does, most models here have more rows than the tokenizer has tokens.
ROWS = 576
WINDOW = 64
COMMON = {
    "vocab_size": ROWS,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": WINDOW,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
GROUPED = {**COMMON, "num_key_value_heads": 2, "head_dim": 12}


def configs() -> dict[str, transformers.PretrainedConfig]:
    t = transformers
    return {
        "gpt2": t.GPT2Config(
            vocab_size=ROWS, n_embd=48, n_layer=3, n_head=4, n_positions=WINDOW, bos_token_id=0, eos_token_id=0
        ),
        "gpt_neox": t.GPTNeoXConfig(**COMMON),
        "opt": t.OPTConfig(**{**COMMON, "ffn_dim": 96, "word_embed_proj_dim": 48}),
        # As OPT-350m: embedding narrower than the blocks, norm after instead of before.
        "opt_narrow": t.OPTConfig(
            **{**COMMON, "ffn_dim": 96, "word_embed_proj_dim": 24, "do_layer_norm_before": False}
        ),
        "llama": t.LlamaConfig(**GROUPED),
        "mistral": t.MistralConfig(**GROUPED, sliding_window=16),
        "qwen3": t.Qwen3Config(**GROUPED),
        "olmo2": t.Olmo2Config(**COMMON),
        # Caps and scales strong enough that ignoring one shows.
        "gemma2": t.Gemma2Config(**GROUPED, final_logit_softcapping=0.5, sliding_window=16),
        "gemma3": t.Gemma3TextConfig(**GROUPED, sliding_window=16),
        "cohere": t.CohereConfig(**{**GROUPED, "logit_scale": 0.25}),
        "granite": t.GraniteConfig(**GROUPED, logits_scaling=4.0, embedding_multiplier=3.0),
        "mamba": t.MambaConfig(
            vocab_size=ROWS, hidden_size=48, num_hidden_layers=3, state_size=8, bos_token_id=0, eos_token_id=0
        ),
        # A head with a bias.
        "gptj": t.GPTJConfig(
            vocab_size=ROWS,
            n_embd=48,
            n_layer=3,
            n_head=4,
            n_positions=WINDOW,
            rotary_dim=8,
            bos_token_id=0,
            eos_token_id=0,
        ),
    }


ARCHITECTURES = sorted(configs())


def make_model(name: str, seed: int = 0, spread: float = 5.0) -> transformers.PreTrainedModel:
    """Return a random model in float32, its weights spread so that the distributions are not flat."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(configs()[name], dtype=torch.float32)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "norm" not in parameter_name:
                parameter.mul_(spread)
            elif "bias" in parameter_name:
                parameter.add_(torch.randn_like(parameter) * 0.5)
    return model.eval()
