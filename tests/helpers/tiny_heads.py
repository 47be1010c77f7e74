"""A random LM head with states, and a model whose states tell the last token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import transformers
from tiny_models import WINDOW

from lmsat_plugin.model.lm_head import Head

if TYPE_CHECKING:
    from lmsat_plugin.synthetic import MarkovSource


def random_head(rows=300, width=12, seed=0, **parts) -> tuple[Head, torch.Tensor, torch.Tensor]:
    """Return a head, 50 states about a mean of their own, and their targets."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=generator)
    states = torch.randn(50, width, generator=generator) * torch.linspace(0.1, 3, width) + 1
    targets = torch.randint(rows, (50,), generator=generator)
    return Head(weight, **parts), states, targets


def exact_model(source: MarkovSource, width: int):
    """Return a Llama without blocks whose states tell the last token, under a head of random weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=source.vocabulary + 1, hidden_size=width, num_hidden_layers=0, intermediate_size=8,
        num_attention_heads=1, max_position_embeddings=WINDOW, bos_token_id=source.vocabulary,
        eos_token_id=source.vocabulary, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).float().eval()
