"""Trees of result files as sweeps write them, of models that never were: many models by many checkpoints."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 13000, 1000))
TOKENS_PER_STEP = 2_000_000
CORPUS = "held-out"
PROBES = {"lmsat_loss": "loss", "lmsat_anisotropy": "anisotropy", "lmsat_head": "head"}
# A task's chance, the loss from which on it is learned, and its answer's standard error.
TASKS = {"piqa": (0.5, 4.0, 0.011), "arc_easy": (0.25, 3.4, 0.010)}


@dataclass(frozen=True)
class Made:
    """A model: its name, its number of parameters, and the step from which on its loss rises."""

    name: str
    n_params: int
    rises_from: int | None = None


def write_result(
    root: Path,
    model: str,
    step: int,
    values: Mapping[str, Mapping[str, float | tuple[float, float]]],
    n_params: int | None = None,
    corpus: str = CORPUS,
) -> Path:
    """Write a result file of one checkpoint: by task and metric a value, or a value and its standard error."""
    results = {}
    for task, metrics in values.items():
        results[task] = {"alias": task, "sample_len": 1000}
        for metric, value in metrics.items():
            number, stderr = value if isinstance(value, tuple) else (value, "N/A")
            results[task] |= {f"{metric},none": number, f"{metric}_stderr,none": stderr}
    noted: dict[str, Any] = {
        "lmsat_version": "0.1.0",
        "dtype": "float32",
        "checkpoint": {"model": model, "revision": f"step{step}", "commit": f"{step:040x}", "step": step},
        "probes": {
            PROBES[task]: {"version": 1, "settings": {}, "reads_corpus": task != "lmsat_head"}
            for task in values
            if task in PROBES
        },
        "corpus": {"corpus": corpus, "documents": 40, "sha256": "ab" * 32},
    }
    if n_params is not None:
        noted["model"] = {"n_params": n_params, "n_params_non_embedding": n_params * 9 // 10}
    data = {
        "results": results,
        "config": {"model": "lmsat", "model_args": {"pretrained": model, "revision": f"step{step}"}, "lmsat": noted},
        "higher_is_better": {
            task: {metric: metric != "brier_score" for metric in values[task]} for task in values if task not in PROBES
        },
        "n-shot": dict.fromkeys(values, 0),
        "date": 1.79e9 + step,
        "lm_eval_version": "0.4.13",
        "transformers_version": "5.0.0",
    }
    # A name may be no name of a folder.
    place = root / f"{model.encode().hex()[:60]}-{corpus.encode().hex()}" / f"step{step}"
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"results_{len(list(place.iterdir()))}.json"
    path.write_text(json.dumps(data), "utf-8")
    return path


def write_tree(
    root: Path,
    models: Sequence[Made],
    steps: Sequence[int] = STEPS,
    tasks: Mapping[str, tuple[float, float, float]] = TASKS,
    corpus: str = CORPUS,
    seed: int = 0,
) -> None:
    """Write a sweep's results: Chinchilla's loss with noise, the geometry, and scores that leave chance at a loss.

    Where a model saturates, its loss and anisotropy rise from that step on.
    """
    rng = np.random.default_rng(seed)
    for model in models:
        for step in steps:
            tokens = step * TOKENS_PER_STEP
            loss = 1.8 + 480 / model.n_params**0.35 + 2000 / (tokens + 1e6) ** 0.37
            risen = 0.0
            if model.rises_from is not None and step > model.rises_from:
                risen = math.log(step / model.rises_from)
            loss += 0.3 * risen + 0.004 * rng.standard_normal()
            values: dict[str, dict[str, float | tuple[float, float]]] = {
                "lmsat_loss": {
                    "loss": (loss, 0.006),
                    "perplexity": math.exp(loss),
                    "bits_per_byte": loss / math.log(2) / 4.3,
                },
                "lmsat_anisotropy": {
                    "anisotropy_last": min(0.95, 0.05 + 0.04 * math.log1p(step) + 0.3 * risen),
                    "anisotropy_mean": min(0.9, 0.05 + 0.03 * math.log1p(step)),
                },
                "lmsat_head": {
                    "singular_entropy": 0.02 + 0.5 / (1 + step / 500) + 0.2 * risen,
                    "effective_rank": 300 - 10 * math.log1p(step),
                },
            }
            for task, (chance, learned_at, stderr) in tasks.items():
                acc = min(0.99, chance + 0.25 * max(0.0, learned_at - loss) + stderr * rng.standard_normal())
                values[task] = {"acc": (acc, stderr), "brier_score": 1 - acc, "correct_choice_prob": (acc, stderr)}
            write_result(root, model.name, step, values, model.n_params, corpus)


def save_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays beside a result file, which names them."""
    from safetensors.numpy import save_file

    data = json.loads(file.read_text("utf-8"))
    save_file(dict(arrays), file.with_suffix(".safetensors"))
    data["config"]["lmsat"]["arrays"] = file.with_suffix(".safetensors").name
    file.write_text(json.dumps(data), "utf-8")


def add_arrays(
    root: Path, layers: int = 5, width: int = 12, documents: int = 0, window: int = 0, seed: int = 0
) -> None:
    """Give each result the arrays of a sweep: deeper layers more anisotropic, a spectrum, and losses if asked for.

    Losses are by document and by position in the context, which helps as T^-1/2.
    """
    rng = np.random.default_rng(seed)
    tokens_M = rng.integers(200, 2000, documents)
    unlike_M = 0.3 * rng.standard_normal(documents)
    for file in root.rglob("results_*.json"):
        data = json.loads(file.read_text("utf-8"))
        arrays = {
            "anisotropy/by_layer": np.linspace(0.1, 0.5, layers),
            "head/singular_values": 3.0 * np.geomspace(1, 0.01, width),
        }
        if documents and "lmsat_loss" in data["results"]:
            loss = data["results"]["lmsat_loss"]["loss,none"]
            mean_M = unlike_M + 0.005 * rng.standard_normal(documents)
            mean_M += loss - np.average(mean_M, weights=tokens_M)
            context = np.arange(1, window + 1)
            arrays |= {
                "loss/by_document": mean_M * tokens_M,
                "loss/by_document_tokens": tokens_M,
                "loss/by_position": loss + context**-0.5 - (context**-0.5).mean(),
                "loss/by_position_tokens": np.full(window, tokens_M.sum() // window),
            }
        save_arrays(file, arrays)
