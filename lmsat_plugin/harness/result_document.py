"""The result file that the command ``lm_eval`` would write, from what lm-eval's ``simple_evaluate`` returns."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lm_eval import evaluator
from lm_eval.loggers import EvaluationTracker
from lm_eval.loggers.utils import add_env_info, get_git_commit_hash
from lm_eval.utils import handle_non_serializable, hash_string


def as_written_by_lm_eval(
    results: dict[str, Any], tracker: EvaluationTracker, model_args: dict[str, Any]
) -> dict[str, Any]:
    """Return what ``lm_eval --model lmsat`` writes, as plain JSON values, ``samples`` among them if kept.

    ``results`` are what ``simple_evaluate`` has returned, and ``tracker`` is what it was given. ``model_args`` is how
    ``lm_eval`` would have been told to load the checkpoint.
    """
    general = tracker.general_config_tracker
    general.log_end_time()
    general.model_source = results["config"]["model"] = "lmsat"
    for config in results.get("configs", {}).values():
        if isinstance(config.get("metadata"), dict):
            config["metadata"] = {**config["metadata"], **model_args}
    hashes = {
        task: hash_string("".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples))
        for task, samples in (results.get("samples") or {}).items()
    }
    results.update({"task_hashes": hashes, **asdict(general)})
    return json.loads(json.dumps(results, default=handle_non_serializable, ensure_ascii=False))


def metrics_of(results: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of lm-eval's results, named ``task/metric``, with the filter where it is not ``none``."""
    metrics = {}
    for task, values in results["results"].items():
        for key, value in values.items():
            metric, comma, chosen = key.partition(",")
            if comma and isinstance(value, int | float):
                metrics[f"{task}/{metric}" if chosen == "none" else f"{task}/{key}"] = float(value)
    return metrics


@contextmanager
def cached_environment() -> Iterator[None]:
    """Let lm-eval ask for its environment once a process: it starts several programs for it each time."""
    before = evaluator.add_env_info, evaluator.get_git_commit_hash
    evaluator.add_env_info = lambda results: results.update(_environment())
    evaluator.get_git_commit_hash = _git_hash
    try:
        yield
    finally:
        evaluator.add_env_info, evaluator.get_git_commit_hash = before


@functools.cache
def _environment() -> dict[str, Any]:
    environment: dict[str, Any] = {}
    add_env_info(environment)
    return environment


@functools.cache
def _git_hash() -> str | None:
    # Outside a repository git would complain on the terminal.
    here = Path.cwd()
    if any((folder / ".git").exists() for folder in (here, *here.parents)):
        return get_git_commit_hash()
    return None
