"""Runs of lm-eval inside the test's own process, on the tasks of this checkout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from places import ROOT

from lmsat_plugin.harness.result_document import cached_environment

if TYPE_CHECKING:
    from pathlib import Path

TASKS = ["lmsat_loss", "lmsat_anisotropy", "lmsat_head"]


def simple_evaluate(**options):
    """Call lm-eval, which asks for its environment only once: it starts several programs for it each time."""
    with cached_environment():
        return lm_eval.simple_evaluate(**options)


def evaluate(model, tasks=TASKS, folders=(), model_args=None, **options):
    """Call lm-eval on tasks of this checkout; what is no option of lm-eval is metadata."""
    names = {"limit", "batch_size", "device", "log_samples", "samples"}
    own = {key: options.pop(key) for key in names & options.keys()}
    # As lm-eval does when it makes the task manager itself.
    metadata = {**(model_args or {}), **options}
    paths = [ROOT / "tasks", *folders]
    manager = TaskManager(include_defaults=False, include_path=paths, metadata=metadata)
    return simple_evaluate(
        model=model, model_args=model_args, tasks=tasks, task_manager=manager, bootstrap_iters=0, **own
    )


def write_probe_task(folder: Path, name: str, text: str) -> Path:
    """Write a task of ours, whose YAML goes on with ``text``, and return its folder."""
    folder.mkdir(exist_ok=True)
    start = f"task: {name}\nclass: !function lmsat_plugin.harness.task.ProbeTask\n"
    (folder / f"{name}.yaml").write_text(start + text)
    return folder


def numbers(results) -> dict[tuple[str, str], float]:
    """Return all metrics of all tasks; lm-eval writes "N/A" for standard errors that there are none of."""
    return {
        (task, key): value
        for task, row in results["results"].items()
        for key, value in row.items()
        if key.endswith(",none") and value != "N/A"
    }


def rolling_requests(texts: list[str]) -> list[Instance]:
    """Return what lm-eval asks of a model for the log-likelihood of whole texts."""
    return [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=index)
        for index, text in enumerate(texts)
    ]
