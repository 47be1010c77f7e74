"""Results of LM heads of several ranks that never were: arrays, result files, and accuracies of lm-eval's tasks."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import save_file

from lmsat_plugin.analysis import find_rank_needed
from lmsat_plugin.analysis.rank_needed import RankCurve
from lmsat_plugin.results import Results

RANKS = np.array([4, 8, 16, 32])
TOKENS = np.array([100, 250, 70, 400, 180])
FULL = 3.0


def curve_of(losses, name="truncated", tokens=TOKENS, full=FULL, ranks=RANKS) -> RankCurve:
    """Return the curve of a corpus whose documents are all alike, with these losses."""
    return RankCurve(
        name=name, ranks_K=ranks, nats_KM=np.outer(losses, tokens), tokens_M=tokens, full_nats_M=full * tokens
    )


def arrays_of(seed=0, documents=6, ranks=RANKS, trained=True) -> dict[str, np.ndarray]:
    """Return arrays as lmsat_rank_head leaves them; the trained heads need less rank than the truncated ones."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(50, 500, size=documents)
    full = tokens * rng.normal(FULL, 0.3, size=documents)
    arrays = {"ranks": ranks, "by_document_tokens": tokens, "full_by_document": full}
    scales = {"trained": 1, "weighted_truncated": 3, "truncated": 5}
    for name, scale in scales.items():
        gaps = scale / ranks[:, None] + rng.normal(0, 0.01, size=(len(ranks), documents))
        arrays[f"{name}_by_document"] = full + gaps * tokens
    arrays["truncated_bound"] = 50.0 / ranks
    arrays["weighted_truncated_bound"] = 100.0 / ranks - 1
    arrays["singular_values"] = np.arange(24, 0, -1.0)
    if not trained:
        del arrays["trained_by_document"]
    return {f"rank_head/{key}": value for key, value in arrays.items()}


def write_rank_result(folder, step, arrays, corpus="sample", note=None, more=None, settings=None) -> None:
    """Write a sweep's result file and its arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    provenance = {
        "probes": {"rank_head": {"version": 1, "settings": settings or {}}, "gradient_bottleneck": {"version": 1}},
        "corpus": {"corpus": corpus, "max_tokens": 50_000, "seed": 0, "documents": 6},
        "model": {"n_params": 1000, "hidden_size": 24, "vocab_size": 512},
        "checkpoint": {"model": "neox-w24", "revision": f"step{step}", "step": step},
        "arrays": f"arrays_{step}.safetensors",
        **(note or {}),
    }
    results = {"lmsat_rank_head": {"alias": "lmsat_rank_head", "full_loss,none": FULL}, **(more or {})}
    content = {
        "results": results,
        "configs": {task: {"task": task} for task in results},
        "config": {"model": "lmsat", "model_args": {"pretrained": "neox-w24"}, "lmsat": provenance},
        "date": 1.7e9 + step,
    }
    (folder / f"results_{step}.json").write_text(json.dumps(content))
    if arrays:
        save_file(arrays, folder / f"arrays_{step}.safetensors")


def write_scores(file, args, results, date=1.7e9, name=None, width=None, **more) -> None:
    """Write results of lm-eval's tasks: plain lm_eval's, or a sweep's if it has a name for the model."""
    note = {"checkpoint": {"model": name, "revision": "step10", "step": 10}} if name else {}
    if width is not None:
        note["model"] = {"hidden_size": width}
    content = {
        "results": {task: {"alias": task, **values} for task, values in results.items()},
        "configs": {task: {"task": task, "num_fewshot": 0} for task in results},
        "config": {
            "model": "lmsat",
            "model_args": args,
            "model_revision": "step10" if name else "main",
            **({"lmsat": note} if note else {}),
        },
        "date": date,
        **more,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def scores_of(one) -> dict[tuple, float]:
    """Return the accuracies of a checkpoint by task, variant if it has one, metric, curve and rank."""
    return {
        (*(s[key] for key in ("task", "variant") if s[key] is not None), s["metric"], s["curve"], s["rank"]): s["value"]
        for s in one["downstream"]
    }


def values_of(tree) -> list[dict]:
    """Return the plain data of each checkpoint, which is strict JSON."""
    values = [checkpoint.values for checkpoint in find_rank_needed(Results.read(tree))]
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    return values
