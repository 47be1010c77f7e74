"""Records of Every Eval Ever out of results, schema 0.3.0 (https://github.com/evaleval/every_eval_ever).

Imports neither lm_eval nor torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import PART, check_writable, remove_strays, safe_name, write_atomically
from lmsat_plugin.metrics import is_measurement, metric
from lmsat_plugin.results.json_values import as_text
from lmsat_plugin.results.reading import ResultFile
from lmsat_plugin.results.table import ORDER
from lmsat_plugin.results.tree import Results
from lmsat_plugin.results.variants import label

SCHEMA_VERSION = "0.3.0"
COLLECTION = "lmsat"
_CANONICAL = {
    "acc": "accuracy",
    **dict.fromkeys(("exact_match", "em"), "exact-match"),
    **{name: name for name in ("f1", "perplexity")},
}
"""Identifiers in the project's registry; other metrics get a prefix."""
_RUN_HERE = {"lmsat", "hf", "hf-auto", "huggingface", "hf-causal", "hf-causal-experimental", "vllm", "sglang"}
"""lm-eval's names for models whose weights it loads itself."""
_MODEL_COLUMNS = ("revision", "commit", "step", "tokens", "n_params", "n_params_non_embedding", "vocab_size")


def export(results: Results, folder: Path) -> list[Path]:
    """Write a record of each result file to ``data/lmsat/DEVELOPER/MODEL/UUID.json``; return their paths.

    A record's name follows from its content, so that exporting again replaces it. Values that are not finite are left
    out, since JSON has none. What results do not state is "unknown", or absent where the schema allows that: who made
    the model, who evaluated it, whether its weights are open, generation settings, records of the samples.

    Raises `LmsatError` if the folder cannot be written, or there is no finite value.
    """
    check_writable(folder)
    remove_strays(folder, f"**/.*{PART}")
    table = _named(results)
    finite = table[np.isfinite(table.value)]
    if finite.empty:
        raise LmsatError(f"{results.root} holds no finite value to export: give a folder with results")
    written = []
    for (path, model), rows in finite.groupby(["path", "model"], sort=True):
        content = record(rows, results.files[str(path)])
        # The time of the export does not belong to what is exported.
        lasting = {key: value for key, value in content.items() if key not in ("retrieved_timestamp", "evaluation_id")}
        digest = hashlib.sha256(json.dumps([lasting, path], sort_keys=True).encode()).digest()
        name = f"{uuid.UUID(bytes=digest[:16], version=4)}.json"
        parts = safe_name(_developer(str(model))), safe_name(str(model).rpartition("/")[2])
        file = folder.joinpath("data", COLLECTION, *parts, name)
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
        write_atomically(file, text.encode("utf-8"))
        written.append(file)
    return written


def _named(results: Results) -> pd.DataFrame:
    """Return the table with the variants in the names of the models and of the corpora that they belong to."""
    table = results.table
    variants = [results.variants[name or ""] for name in table.variant]
    models = [label(name, own.model) for name, own in zip(table.model, variants, strict=True)]
    corpora = [label(name, own.text) for name, own in zip(table.corpus, variants, strict=True)]
    named = table.assign(model=models, corpus=corpora)
    return named.sort_values([name for name in ORDER if name != "variant"], na_position="last")


def record(rows: pd.DataFrame, file: ResultFile) -> dict[str, Any]:
    """Return the record of one result file, whose rows of a tidy table, of one model, are ``rows``."""
    values: list[dict[Any, Any]] = rows.to_dict("records")
    first, now = values[0], str(int(time.time()))
    evaluated = None if rows.date.isna().all() else str(int(first["date"].timestamp()))
    details = {name: str(first[name]) for name in _MODEL_COLUMNS if not pd.isna(first[name])}
    if first["n_params_from_name"] is True:
        del details["n_params"]
    kind = as_text(file.header["config"].get("model"))
    library = _library(file)
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": f"{COLLECTION}/{first['model']}/{first['revision']}/{evaluated or 'unknown'}/{now}",
        "evaluation_timestamp": evaluated,
        "retrieved_timestamp": now,
        "source_metadata": {
            "source_name": "lm-evaluation-harness" if library == "lm_eval" else library,
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "other",
            "additional_details": {"file": first["path"]},
        },
        "eval_library": {"name": library, "version": file.text("lm_eval_version") or "unknown"},
        "model_info": {
            "name": first["model"],
            "id": first["model"],
            "developer": _developer(first["model"]),
            "additional_details": {
                "deployment_type": "self_deployed" if kind in _RUN_HERE else "unknown",
                "model_availability": "unknown",
                **details,
            },
        },
        "evaluation_results": [_result(row, file) for row in values],
    }
    return {key: value for key, value in content.items() if value is not None}


def _result(row: Mapping[str, Any], file: ResultFile) -> dict[str, Any]:
    filtered = "" if row["filter"] == "none" else f":{row['filter']}"
    shots = {} if pd.isna(row["num_fewshot"]) else {"num_fewshot": int(row["num_fewshot"])}
    uncertainty: dict[str, Any] = {}
    if np.isfinite(row["stderr"]):
        uncertainty["standard_error"] = {"value": row["stderr"]}
    if not pd.isna(row["n_samples"]):
        uncertainty["num_samples"] = int(row["n_samples"])
    return {
        "evaluation_result_id": f"{row['task']}:{row['metric']}{filtered}",
        "evaluation_name": row["task"],
        "source_data": _source(row, file),
        "metric_config": _metric(row, shots, "lmsat" if is_measurement(row["task"]) else _library(file)),
        "score_details": {"score": row["value"], **({"uncertainty": uncertainty} if uncertainty else {})},
    }


def _source(row: Mapping[str, Any], file: ResultFile) -> dict[str, Any]:
    """Return where the text or the questions come from."""
    dataset, split = file.datasets.get(row["task"], (None, None))
    if not pd.isna(row["corpus"]):
        return {"dataset_name": row["corpus"], "source_type": "other"}
    if dataset is None or dataset.count("/") != 1 or dataset.startswith((".", "/", "~")):
        return {"dataset_name": row["task"], "source_type": "other"}
    source = {"dataset_name": row["task"], "source_type": "hf_dataset", "hf_repo": dataset}
    return {**source, "hf_split": split} if split else source


def _library(file: ResultFile) -> str:
    """Return the name of the program that evaluated."""
    return as_text(file.header["config"].get("library")) or "lm_eval"


def _metric(row: Mapping[str, Any], shots: dict[str, int], prefix: str) -> dict[str, Any]:
    """Return the metric's unit, direction and range; what is unknown is marked as the project's converters mark it."""
    own, kind = is_measurement(row["task"]), metric(row["metric"])
    directed = not pd.isna(row["higher_is_better"])
    marks = {} if directed else {"polarity": "not_applicable" if own else "unknown"}
    scale: dict[str, Any] = {}
    if kind.low is None or kind.high is None:
        marks["bounds_status"] = "unknown"
    else:
        most = kind.high if math.isfinite(kind.high) else "Infinity"
        scale = {"score_type": "continuous", "min_score": kind.low, "max_score": most}
    return {
        "metric_id": _CANONICAL.get(row["metric"], f"{prefix}.{row['metric']}"),
        "metric_name": row["metric"],
        **({"metric_unit": kind.unit} if kind.unit else {}),
        "metric_parameters": {"filter": row["filter"], **shots},
        # The schema requires a direction of every metric.
        "lower_is_better": directed and not row["higher_is_better"],
        **scale,
        **({"additional_details": marks} if marks else {}),
    }


def _developer(model: str) -> str:
    return model.rpartition("/")[0] or "unknown"
