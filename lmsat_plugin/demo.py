"""The demonstration: train two small series on the sample text, and sweep over their checkpoints.

Everything is real and small: GPT-NeoX models as Pythia's, trained with Pythia's optimiser settings, saved as
ordinary Hugging Face checkpoints, measured through lm-eval on documents they were not trained on.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lmsat_plugin.corpora import CorpusSettings, sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lmsat_plugin.sweep.runner import Summary

WIDTHS = (32, 128)
STEPS = (0, 2, 4, 8, 16, 32, 64, 128, 256, 512)
VOCABULARY = 2048
CONTEXT = 128
BATCH = 16
_HELD_OUT_EVERY = 8


def split_sample() -> tuple[list[str], list[str]]:
    """Return the documents of the sample corpus to train on, and every eighth, held out."""
    documents = [text for text in sample(CorpusSettings()) if text.strip()]
    held_out = documents[::_HELD_OUT_EVERY]
    return [text for index, text in enumerate(documents) if index % _HELD_OUT_EVERY], held_out


def write_corpus(documents: Sequence[str], path: Path) -> None:
    """Write documents as .jsonl, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), "utf-8")


def train_tokenizer(documents: Sequence[str]) -> transformers.PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of 2,048 tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        documents,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=[end], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token=end, eos_token=end)


def make_model(width: int) -> transformers.GPTNeoXForCausalLM:
    """Return an untrained GPT-NeoX of four layers, shaped as Pythia."""
    torch.manual_seed(0)
    return transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=4 * width,
            max_position_embeddings=CONTEXT,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def train(
    width: int, documents: Sequence[str], tokenizer: transformers.PreTrainedTokenizerFast, folder: Path
) -> Iterator[tuple[int, Path]]:
    """Train one model; yield each checkpoint's step and folder as soon as it is saved.

    Adam as Pythia's: betas 0.9 and 0.95, weight decay 0.1, gradients clipped at 1, a short warm-up, and a
    cosine to a tenth of the peak.
    """
    stream = [token for text in documents for token in [*tokenizer.encode(text), tokenizer.eos_token_id]]
    rows = torch.tensor(stream[: len(stream) // CONTEXT * CONTEXT]).view(-1, CONTEXT)
    generator = torch.Generator().manual_seed(0)
    model = make_model(width)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    order = torch.empty(0, dtype=torch.long)
    for step in range(STEPS[-1] + 1):
        if step in STEPS:
            place = folder / f"step{step}"
            model.save_pretrained(place)
            tokenizer.save_pretrained(place)
            yield step, place
        if len(order) < BATCH:
            order = torch.randperm(len(rows), generator=generator)
        batch, order = rows[order[:BATCH]], order[BATCH:]
        for group in optimiser.param_groups:
            group["lr"] = _learning_rate(step, peak=3e-3)
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()


def _learning_rate(step: int, peak: float) -> float:
    warmup = 16
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / (STEPS[-1] - warmup)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def run_demo(output: Path, show: Callable[[str], None]) -> Summary:
    """Train the series and sweep over them as `configs/demo.yaml` says; ``show`` is told how far training is.

    Under ``output``: the held-out corpus, the checkpoints, and the results.
    """
    from lmsat_plugin.sweep.config import SHIPPED, load_config
    from lmsat_plugin.sweep.run import run_sweep

    documents, held_out = split_sample()
    write_corpus(held_out, output / "held_out.jsonl")
    tokenizer = train_tokenizer(documents)
    for width in WIDTHS:
        name = f"neox-w{width}"
        for step, _ in train(width, documents, tokenizer, output / "checkpoints" / name):
            show(f"{name}: step {step} of {STEPS[-1]}")
    here = {
        "models": [
            {"pretrained": str(output / "checkpoints" / f"neox-w{width}"), "tokens_per_step": BATCH * CONTEXT}
            for width in WIDTHS
        ],
        "corpora": str(output / "held_out.jsonl"),
        "output": str(output / "results"),
    }
    return run_sweep(load_config(SHIPPED / "demo.yaml", here))
