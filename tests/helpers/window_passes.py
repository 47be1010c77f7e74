"""What a model gives on lm-eval's windows, one by one: inputs, states of each layer, logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tiny_models import WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class WindowPass:
    """The scored tokens of one window; rows are the positions from which they are predicted."""

    document: int
    inputs: list[int]
    """The tokens at these positions."""
    targets: list[int]
    first: int
    """The position of the first of them in the window."""
    layers: list[np.ndarray]
    logits: np.ndarray


def window_passes(model, tokenizer, texts: Sequence[str], *, with_states: bool = True) -> Iterator[WindowPass]:
    """Yield the windows of each text in order, float64, with the prefix token 0 before each text."""
    for number, text in enumerate(texts):
        tokens = tokenizer.encode(text, add_special_tokens=False)
        pairs = get_rolling_token_windows(tokens, prefix_token=0, max_seq_len=WINDOW, context_len=1)
        for context, continuation in map(make_disjoint_window, pairs):
            inputs = torch.tensor([[*context, *continuation[:-1]]])
            with torch.no_grad():
                out = model(inputs, output_hidden_states=with_states)
            layers = list(out.hidden_states or ())
            if layers and model.config.model_type == "mamba":  # its list begins after the first block
                layers = [model.get_input_embeddings()(inputs).detach(), *layers[:-2], layers[-1]]
            scored = len(continuation)
            yield WindowPass(
                document=number,
                inputs=inputs[0, -scored:].tolist(),
                targets=list(continuation),
                first=inputs.shape[1] - scored,
                layers=[layer[0, -scored:].double().numpy() for layer in layers],
                logits=out.logits[0, -scored:].double().numpy(),
            )


def states_of(model, tokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """Return each layer's states [tokens, width] that predict a token."""
    parts = [each.layers for each in window_passes(model, tokenizer, texts)]
    return list(map(np.concatenate, zip(*parts, strict=True)))
