"""Short trainings with transformers' Trainer."""

from __future__ import annotations

import transformers
from tiny_models import WINDOW, make_model

STEPS = 5
LOSS = "lmsat_loss/loss"


def train(
    tokenizer, documents, folder, *callbacks, steps=STEPS, model=None, trainer_type=transformers.Trainer, **options
) -> transformers.Trainer:
    """Train a tiny model, with dropout and accumulated gradients; the same at each call."""
    transformers.set_seed(0)
    arguments = {
        "max_steps": steps,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **options,
    }
    tokens = tokenizer.encode(" ".join(documents))
    rows = [tokens[start : start + WINDOW] for start in range(0, 20 * WINDOW, WINDOW)]
    dataset = [{"input_ids": row, "labels": row} for row in rows]
    trainer = trainer_type(
        model=model or make_model("gpt2", spread=1.0),
        args=transformers.TrainingArguments(str(folder), **arguments),
        train_dataset=dataset,
        eval_dataset=dataset[:2],
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    trainer.train()
    return trainer
