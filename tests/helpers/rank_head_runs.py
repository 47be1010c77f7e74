"""Measurements of lmsat_rank_head with trained heads."""

from __future__ import annotations

from tiny_models import WINDOW

from lmsat_plugin import measure


def train(model, tokenizer, texts, **settings):
    settings = {"ranks": [4, 48], "train_tokens": 12_000, "batch_tokens": 512, **settings}
    return measure(
        model, ["rank_head"], corpus=texts, tokenizer=tokenizer, max_tokens=1500, max_length=WINDOW, **settings
    )
