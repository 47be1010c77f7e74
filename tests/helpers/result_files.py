"""Single result files: as lm-eval wrote them in 2023, as it writes them now, and with lmsat's notes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

OLD = "use_accelerate=True,pretrained=EleutherAI/pythia-v1.1-160m,revision=step1000"


def old(args=OLD, **results) -> dict:
    """Return a file as lm-eval wrote it in 2023."""
    config = {"model": "hf-causal", "model_args": args, "num_fewshot": 0, "batch_size": 32, "limit": None}
    return {
        "results": results or {"lambada_openai": {"ppl": 2591.5, "ppl_stderr": 111.2, "acc": 0.0625}},
        "versions": {"lambada_openai": 0},
        "config": config,
    }


def new(results=None, args=None, date=1.7e9, config=None, **top) -> dict:
    """Return a file as lm-eval 0.4 writes it."""
    results = results or {"piqa": {"name": "piqa", "alias": "piqa", "sample_len": 1838, "acc,none": 0.5}}
    return {
        "results": results,
        "configs": {task: {"task": task, "num_fewshot": 5} for task in results},
        "config": {
            "model": "hf",
            "model_args": args or {"pretrained": "EleutherAI/pythia-14m", "revision": "step1000"},
            "limit": None,
            **(config or {}),
        },
        "date": date,
        **top,
    }


def ours(value, date=1.7e9, args=None, corpus=None, checkpoint=None, settings=None, **more) -> dict:
    """Return a file of lmsat's loss."""
    corpus = {
        **{"corpus": "sample", "max_tokens": 50000, "seed": 0, "limit": None, "window": 2048},
        **{"documents": 22, "sha256": "a" * 64},
        **(corpus or {}),
    }
    note = {
        "commit": None,
        "dtype": "float32",
        "probes": {"loss": {"version": 1, "settings": settings or {}}},
        "corpus": corpus,
        "model": {"n_params": 1000, "n_params_non_embedding": 700, "hidden_size": 48, "vocab_size": 576},
        **({"checkpoint": checkpoint} if checkpoint else {}),
        **more,
    }
    entry = {"alias": "lmsat_loss", "loss,none": value, "loss_stderr,none": 0.25, "loss_stderr_stderr,none": "N/A"}
    found = new({"lmsat_loss": entry}, args, date, {"lmsat": note})
    found["n-samples"] = {"lmsat_loss": {"original": 30, "effective": 1}}
    found["higher_is_better"] = {"lmsat_loss": {"loss": False}}
    return found


def write(path: Path, content: dict | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2), "utf-8")
    return path
