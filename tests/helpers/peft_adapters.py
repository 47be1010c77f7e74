"""Adapters made by PEFT itself, on saved models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import peft
import torch
import transformers

if TYPE_CHECKING:
    from pathlib import Path

LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "init_lora_weights": False}
IA3_OF_LLAMA = {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}


def save_adapter(
    folder: Path, base: Path, seed: int = 1, *, kind: str = "Lora", rows: int | None = None, **settings: Any
) -> Path:
    """Save an adapter with random weights of a kind on a saved model, with as many rows as given; return its folder."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(seed)
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
    defaults = LORA if kind == "Lora" else {}
    config = getattr(peft, f"{kind}Config")(**{"task_type": "CAUSAL_LM", **defaults, **settings})
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) / 20
    adapted.save_pretrained(folder)
    return folder


def load_with_peft(base: Path, adapter: Path, rows: int | None = None, **arguments: Any) -> peft.PeftModel:
    """Return a model with an adapter as PEFT's own documentation loads it, with as many rows as given."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, **arguments)
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
    return peft.PeftModel.from_pretrained(model, adapter).eval()
