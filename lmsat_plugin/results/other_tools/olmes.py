"""Files of OLMES and oe-eval: ``metrics-all.jsonl``, ``metrics.json`` and ``task-000-TASK-metrics.json``.

The layout is what ``oe_eval/run_eval.py`` of OLMES writes: in ``metrics-all.jsonl`` and in each task's file a dict
with ``task_name``, ``task_config``, ``model_config``, ``current_date``, ``num_instances`` and ``metrics``; in
``metrics.json`` the same of all tasks in short, without the date. Its averages over tasks, whose primary metric is
``macro`` or ``micro``, are left out beside their members.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from lmsat_plugin.results.json_values import as_dict, as_dicts, as_integer, as_number, as_text
from lmsat_plugin.results.other_tools.documents import Document, Score, date_of, documents

ALL_TASKS = "metrics-all.jsonl"
"""The file beside which the others of an output folder say nothing new."""
_AVERAGES = {"macro", "micro"}
# Indices of options, and what is always zero: means of them say nothing.
_NO_METRICS = {"no_answer", "correct_choice", "num_instances", "primary_metric"}
_NO_LIMIT = 10**12
_SETTINGS = ("max_length", "add_bos_token", "chat_template", "load_in_8bit")
"""Entries of ``model_config`` that change what was measured."""


def read_lines(data: bytes) -> list[Document]:
    """Return what ``metrics-all.jsonl`` holds. Raises ValueError for another content."""
    entries = [json.loads(line) for line in data.splitlines() if line.strip()]
    if not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("its lines are not those of OLMES")
    return _documents(entry for entry in entries if _is_tasks(entry))


def read_metrics(content: dict[str, Any]) -> list[Document] | None:
    """Return what ``metrics.json``, or the file of one task, holds; None for a file of another tool."""
    if _is_tasks(content):
        return _documents([content])
    model = content.get("model_config")
    entries = as_dicts(content.get("metrics") or content.get("tasks") or [])
    if not isinstance(model, dict) or not entries or not all("task_config" in entry for entry in entries):
        return None
    # Older files have the values among the other entries of a task.
    whole = ({"metrics": entry, "task_name": entry.get("task"), **entry, "model_config": model} for entry in entries)
    return _documents(whole)


def _is_tasks(entry: dict[str, Any]) -> bool:
    return all(isinstance(entry.get(key), dict) for key in ("metrics", "task_config", "model_config"))


def _documents(entries: Iterable[dict[str, Any]]) -> list[Document]:
    """Return documents of entries of tasks: one for each model and time."""
    of_runs: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        of_runs.setdefault(json.dumps(_config(entry), sort_keys=True), []).append(entry)
    found: list[Document] = []
    for index, (config, own) in enumerate(of_runs.items()):
        dates = [date for entry in own if (date := _date(entry)) is not None]
        found += documents(
            [score for entry in own if (score := _score(entry)) is not None],
            json.loads(config),
            date=max(dates, default=None),
            part=str(index) if index else "",
        )
    return found


def _config(entry: dict[str, Any]) -> dict[str, Any]:
    model, limit = as_dict(entry.get("model_config")), as_number(as_dict(entry["task_config"]).get("limit"))
    # A name of OLMES' own stands beside the path that it means.
    name = as_text(model.get("model_path")) or as_text(model.get("model"))
    return {
        "library": "olmes",
        "model_args": {
            "pretrained": name,
            "revision": as_text(model.get("revision")),
            "dtype": as_text(model.get("dtype")),
            **{key: model[key] for key in _SETTINGS if isinstance(model.get(key), str | int | float)},
        },
        "limit": None if limit is None or not 0 < limit < _NO_LIMIT else limit,
    }


def _date(entry: dict[str, Any]) -> float | None:
    return date_of(as_text(entry.get("current_date")) or "", "%Y-%m-%d %H:%M:%S %Z")


def _score(entry: dict[str, Any]) -> Score | None:
    about = as_dict(entry["task_config"])
    primary = as_text(about.get("primary_metric"))
    if primary in _AVERAGES:
        return None
    alias = as_text(as_dict(about.get("metadata")).get("alias")) or as_text(entry.get("alias"))
    task = alias or as_text(entry.get("task_name")) or as_text(about.get("task_name"))
    values = read_values(as_dict(entry["metrics"]))
    if primary in values:
        # It is a copy of that one.
        values.pop("primary_score", None)
    return Score(
        task=task or "unknown",
        values=values,
        shots=as_integer(about.get("num_shots")),
        samples=as_integer(entry.get("num_instances")),
    )


def read_values(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the values by metric, without those that say nothing of a task, or, as NaN, of no question of it."""
    return {
        key: value
        for key, raw in metrics.items()
        if key not in _NO_METRICS
        and not key.startswith(("predicted_index", "correct_index"))
        and (value := as_number(raw)) is not None
        and not math.isnan(value)
    }
