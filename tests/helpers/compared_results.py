"""Result files with what single documents and questions came to, of models that are compared."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from result_trees import save_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TOKENS_PER_STEP = 1000
DATE = "2026-01-01T00-00-00.000000"


def write_losses(
    root: Path,
    model: str,
    step: int,
    nats_M: np.ndarray,
    tokens_M: np.ndarray,
    *,
    bytes_M: np.ndarray | None = None,
    corpus: Mapping[str, Any] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    args: Mapping[str, Any] | None = None,
    arrays: bool = True,
    geometry: bool = False,
) -> Path:
    """Write lmsat_loss of one checkpoint, with its losses by document."""
    bytes_M = 4 * tokens_M if bytes_M is None else bytes_M
    tokens = int(tokens_M.sum())
    loss = float(nats_M.sum() / tokens)
    values = {
        "loss": loss,
        "perplexity": math.exp(loss),
        "bits_per_byte": float(nats_M.sum() / (math.log(2) * bytes_M.sum())),
        "tokens": tokens,
        "bytes": int(bytes_M.sum()),
    }
    residuals_M = nats_M - loss * tokens_M
    stderr = float(np.sqrt(len(nats_M) / (len(nats_M) - 1) * (residuals_M**2).sum()) / tokens)
    results: dict[str, Any] = {
        "lmsat_loss": {"alias": "lmsat_loss", **{f"{name},none": value for name, value in values.items()}}
    }
    results["lmsat_loss"] |= {"loss_stderr,none": stderr}
    if geometry:
        results["lmsat_anisotropy"] = {"anisotropy_last,none": 0.1 + step / 1e4}
        results["lmsat_head"] = {"singular_entropy,none": 2.0, "effective_rank,none": 30.0}
    text = {
        **{"corpus": "held-out", "documents": len(nats_M), "sha256": "ab" * 32, "window": 128, "max_tokens": 50_000},
        **{"seed": 0, "tokenizer_sha256": "cd" * 32, "prefix": "document", **(corpus or {})},
    }
    notes = {
        "lmsat_version": "0.1.0",
        "dtype": "float32",
        "checkpoint": {
            **{"model": model, "revision": f"step{step}", "commit": f"{step:040x}", "step": step},
            **{"tokens": step * TOKENS_PER_STEP, **(checkpoint or {})},
        },
        "probes": {
            "loss": {"version": 1, "settings": {}, "reads_corpus": True},
            "anisotropy": {"version": 1, "settings": {}, "reads_corpus": True},
            "head": {"version": 1, "settings": {}, "reads_corpus": False},
        },
        "corpus": text,
        "model": {"n_params": 10_000, "vocab_size": 512},
    }
    config = {"model": "lmsat", "model_args": {"pretrained": model, **(args or {})}, "lmsat": notes}
    folder = root / f"{model.replace('/', '__')}-{(checkpoint or {}).get('run', '')}" / f"step{step}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"results_{DATE}.json"
    path.write_text(json.dumps({"results": results, "config": config, "date": 1.79e9 + step}), "utf-8")
    if arrays:
        by_document = {"by_document": nats_M, "by_document_tokens": tokens_M, "by_document_bytes": bytes_M}
        save_arrays(path, {f"loss/{name}": array for name, array in by_document.items()})
    return path


def write_questions(
    root: Path,
    model: str,
    scores: Mapping[str, np.ndarray],
    *,
    docs: Sequence[Mapping[str, Any]] | None = None,
    task: str = "quiz",
    values: Mapping[str, float] | None = None,
    prompt: str = "",
    config: Mapping[str, Any] | None = None,
    samples: bool = True,
    **top: Any,
) -> Path:
    """Write a task of lm-eval as ``lm_eval --log_samples`` writes it, with the scores of its questions by metric.

    ``values`` are the task's, the means of the scores unless they are given; ``top`` more of the file.
    """
    count = len(next(iter(scores.values())))
    docs = [{"question": f"question {index}"} for index in range(count)] if docs is None else docs
    entry: dict[str, Any] = {"alias": task}
    for name, scores_M in scores.items():
        value = float(scores_M.mean()) if values is None or name not in values else values[name]
        stderr = float(scores_M.std(ddof=1) / np.sqrt(count)) if scores_M.ndim == 1 and count > 1 else "N/A"
        entry |= {f"{name},none": value, f"{name}_stderr,none": stderr}
    data = {
        "results": {task: entry},
        "n-shot": {task: 0},
        "n-samples": {task: {"original": count, "effective": count}},
        "versions": {task: 1},
        "higher_is_better": {task: {name: not name.endswith(("perplexity", "brier_score")) for name in scores}},
        "config": {"model": "hf", "model_args": {"pretrained": model}, **(config or {})},
        "date": 1.79e9,
        **top,
    }
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"results_{DATE}.json"
    path.write_text(json.dumps(data), "utf-8")
    if samples:
        lines = [
            {
                **{"doc_id": index, "doc": doc, "filter": "none", "metrics": list(scores)},
                **{"doc_hash": json.dumps(doc), "prompt_hash": f"{prompt} {json.dumps(doc)}"},
                **{name: scores_M[index].tolist() for name, scores_M in scores.items()},
            }
            for index, doc in enumerate(docs)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (root / f"samples_{task}_{DATE}.jsonl").write_text(text, "utf-8")
    return path
