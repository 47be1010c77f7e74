"""Run lm-eval from lmsat's own commands, and write the result files that lm-eval writes."""

from __future__ import annotations

import functools
import json
import logging
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval import evaluator, simple_evaluate
from lm_eval.api.registry import model_registry
from lm_eval.loggers import EvaluationTracker
from lm_eval.loggers.utils import add_env_info, get_git_commit_hash
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable

import lmsat_autoload
from lmsat_plugin.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def run_lm_eval_command() -> None:
    """Run ``lm_eval`` on ``sys.argv``."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


def finds_model() -> bool:
    """Return whether lm-eval knows ``--model lmsat``."""
    import lm_eval.models  # noqa: F401

    return "lmsat" in model_registry


def finds_tasks() -> list[str]:
    """Return the tasks of ours, and of our plugins, that a plain lm-eval finds."""
    return [name for name in TaskManager().all_tasks if name.startswith("lmsat_")]


def own_task_manager(metadata: dict[str, Any]) -> TaskManager:
    """Return a task manager of our tasks and our plugins' alone: lm-eval's own take seconds to index."""
    return TaskManager(
        include_defaults=False, include_path=list(lmsat_autoload.task_folders()), metadata=metadata
    )


def evaluate_checkpoint(
    pretrained: str, tasks: Sequence[str], manager: TaskManager, folder: Path, **model_args: Any
) -> dict[str, Any]:
    """Evaluate one checkpoint with ``--model lmsat``; write lm-eval's result file into ``folder``.

    Returns lm-eval's results.

    Raises:
        LmsatError: For a checkpoint that cannot be measured, or a folder that cannot be written.
    """
    tracker = EvaluationTracker()
    with _cached_environment():
        results = simple_evaluate(
            model="lmsat",
            model_args={"pretrained": pretrained, **model_args},
            tasks=manager.match_tasks(list(tasks)),
            task_manager=manager,
            evaluation_tracker=tracker,
            bootstrap_iters=0,
            log_samples=False,
        )
    tracker.general_config_tracker.log_end_time()
    results.update({"task_hashes": {}, **asdict(tracker.general_config_tracker)})
    text = json.dumps(results, indent=2, default=handle_non_serializable, ensure_ascii=False)
    date = datetime.now().isoformat().replace(":", "-")
    write_atomically(folder / f"results_{date}.json", text.encode("utf-8"))
    return results


@contextmanager
def _cached_environment() -> Iterator[None]:
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
    found: dict[str, Any] = {}
    add_env_info(found)
    return found


@functools.cache
def _git_hash() -> str | None:
    # Outside a repository git would complain on the terminal.
    here = Path.cwd()
    return (
        get_git_commit_hash() if any((folder / ".git").exists() for folder in (here, *here.parents)) else None
    )


def quiet() -> None:
    """Silence the progress of lm-eval and transformers, for commands that show their own."""
    import transformers

    for name in ("lm_eval", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
