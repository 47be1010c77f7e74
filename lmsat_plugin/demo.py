"""The demonstrations of ``lmsat demo``: train small series of models, and sweep over their checkpoints.

The models are small GPT-NeoX, shaped as Pythia's and trained with Pythia's optimiser settings. They are saved as
Hugging Face checkpoints and measured through lm-eval on documents that they were not trained on.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.optimization import get_cosine_with_min_lr_schedule_with_warmup_lr_rate

from lmsat_plugin.sweeps.summary import Summary
from lmsat_plugin.synthetic import MarkovSource
from lmsat_plugin.text.corpora import CorpusSettings, sample

_HELD_OUT_EVERY = 8


@dataclass(frozen=True, kw_only=True)
class Training:
    """One model to train: its width, its data and its learning rate."""

    name: str
    width: int
    rows: torch.Tensor
    """Sequences of tokens [N, T], T the context; after all of them they are repeated in another order."""
    learning_rate: float
    """The learning rate at its peak."""
    last_rate: float = 0.1
    """The learning rate at the end, of its peak: with 1 it stays there after the warm-up."""


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """Trainings to compare, and the text that their checkpoints are measured on."""

    config: str
    """The name of the sweep's file among the shipped configurations."""
    trainings: Sequence[Training]
    tokenizer: transformers.PreTrainedTokenizerFast
    held_out: Sequence[str]
    layers: int
    context: int
    batch: int
    """Sequences of a step."""
    steps: Sequence[int]
    """The steps of the checkpoints, the first and the last included."""
    questions: Sequence[dict] = ()
    """The questions of the task ``next-token``: the text before, the choices, and the index of the right one."""

    def run(self, output: Path, show: Callable[[str], None]) -> Summary:
        """Train, and sweep as the file says.

        Args:
            output: A folder for the held-out corpus, the questions' task, the checkpoints, and the results.
            show: Called with a line of text after each checkpoint of the training.
        """
        from lmsat_plugin.sweeps.config import load_config
        from lmsat_plugin.sweeps.local import run_sweep
        from lmsat_plugin.yaml_files import SHIPPED

        corpus = output / "held_out.jsonl"
        write_corpus(self.held_out, corpus)
        models = []
        for training in self.trainings:
            folder = output / "checkpoints" / training.name
            for step in self.train(training, folder):
                show(f"{training.name}: step {step} of {self.steps[-1]}")
            models.append({"pretrained": str(folder), "tokens_per_step": self.batch * self.context})
        overrides = {"models": models, "corpora": str(corpus), "output": str(output / "results")}
        if self.questions:
            write_task(self.questions, output)
            overrides["include_path"] = str(output)
        return run_sweep(load_config(SHIPPED / self.config, overrides))

    def train(self, training: Training, folder: Path) -> Iterator[int]:
        """Train one model; yield each checkpoint's step as soon as it is saved.

        The optimiser is Pythia's AdamW: betas 0.9 and 0.95, weight decay 0.1, gradients clipped at 1, a short
        warm-up, and a cosine, by default to a tenth of the peak.
        """
        generator = torch.Generator().manual_seed(0)
        model = self.make_model(training.width)
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=training.learning_rate, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
        )
        schedule = get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
            optimiser, num_warmup_steps=16, num_training_steps=self.steps[-1], min_lr_rate=training.last_rate
        )
        order = torch.empty(0, dtype=torch.long)
        for step in itertools.count():
            if step in self.steps:
                model.save_pretrained(folder / f"step{step}")
                self.tokenizer.save_pretrained(folder / f"step{step}")
                yield step
            if step == self.steps[-1]:
                return
            if len(order) < self.batch:
                order = torch.randperm(len(training.rows), generator=generator)
            batch, order = training.rows[order[: self.batch]], order[self.batch :]
            model(input_ids=batch, labels=batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()

    def make_model(self, width: int) -> transformers.GPTNeoXForCausalLM:
        """Return an untrained GPT-NeoX, shaped as Pythia."""
        torch.manual_seed(0)
        return transformers.GPTNeoXForCausalLM(
            transformers.GPTNeoXConfig(
                vocab_size=len(self.tokenizer),
                hidden_size=width,
                num_hidden_layers=self.layers,
                num_attention_heads=4,
                intermediate_size=4 * width,
                max_position_embeddings=self.context,
                bos_token_id=self.tokenizer.bos_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
            )
        )


def natural_language(
    widths: Sequence[int] = (32, 128), steps: Sequence[int] = (0, 2, 4, 8, 16, 32, 64, 128, 192, 256, 384, 512)
) -> Demonstration:
    """Return the short demonstration: two widths on the documentation that ships with CPython."""
    documents, held_out = split_sample()
    tokenizer = train_tokenizer(documents)
    stream = [token for text in documents for token in [*tokenizer.encode(text), tokenizer.eos_token_id]]
    context = 128
    rows = torch.tensor(stream[: len(stream) // context * context]).view(-1, context)
    return Demonstration(
        config="demo.yaml",
        trainings=[Training(name=f"neox-w{width}", width=width, rows=rows, learning_rate=3e-3) for width in widths],
        tokenizer=tokenizer,
        held_out=held_out,
        layers=4,
        context=context,
        batch=16,
        steps=steps,
    )


def known_language() -> MarkovSource:
    """Return the language of the long demonstration: 256 tokens, each drawn by the one before it."""
    return MarkovSource.make(vocabulary=256)


def known_answer(
    widths: Sequence[int] = (8, 16, 32, 64), steps: Sequence[int] = (0, 10, 25, 50, *range(100, 2401, 100))
) -> Demonstration:
    """Return the long demonstration: a language whose entropy rate is known.

    Models of several widths see no token twice, and one, as wide as the widest, sees few tokens often. The scores of
    its task follow from the loss.
    """
    source, context, batch = known_language(), 128, 8
    tokenizer = source.tokenizer()
    length = context - 1

    def rows(n: int, seed: int) -> torch.Tensor:
        tokens = torch.from_numpy(source.sample(n * length, seed)).view(n, length)
        # Documents are measured in this way: after the token that ends a text, which is not itself predicted.
        return torch.nn.functional.pad(tokens, (1, 0), value=tokenizer.bos_token_id)

    fresh, repeated = rows(steps[-1] * batch, seed=1), rows(512, seed=2)
    trainings = [(f"fresh-w{width}", width, fresh) for width in widths]
    trainings.append((f"repeated-w{widths[-1]}", widths[-1], repeated))
    return Demonstration(
        config="demo-long.yaml",
        trainings=[
            Training(name=name, width=width, rows=data, learning_rate=0.024 / width**0.5)
            for name, width, data in trainings
        ],
        tokenizer=tokenizer,
        held_out=list(source.documents(400, length, seed=3)),
        layers=2,
        context=context,
        batch=batch,
        steps=steps,
        questions=list(ask(source, 400, seed=4)),
    )


def ask(source: MarkovSource, n: int, seed: int) -> Iterator[dict]:
    """Yield questions: which of four tokens follows a text. The wrong ones are drawn without regard to the context."""
    rng = np.random.default_rng(seed)
    for document in source.documents(n, 17, seed=seed):
        *before, right = document.split()
        drawn = (f"t{token}" for token in rng.choice(source.vocabulary, 20, p=source.stationary))
        wrong = [word for word in dict.fromkeys(drawn) if word != right][:3]
        answer = int(rng.integers(4))
        yield {"before": " ".join(before), "choices": [*wrong[:answer], right, *wrong[answer:]], "answer": answer}


def write_task(questions: Sequence[dict], folder: Path) -> None:
    """Write the task ``next-token`` of lm-eval, and its questions beside it."""
    data = folder / "next-token.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in questions), "utf-8")
    task = {
        "task": "next-token",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{before}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}],
        "metadata": {"version": 1},
    }
    (folder / "next-token.yaml").write_text(yaml.safe_dump(task, sort_keys=False), "utf-8")


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
        trainers.BpeTrainer(vocab_size=2048, special_tokens=[end], initial_alphabet=alphabet, show_progress=False),
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token=end, eos_token=end)
