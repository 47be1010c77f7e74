"""Run the command ``lm_eval``, and tell which of lmsat's models and tasks it finds."""

from __future__ import annotations


def run_lm_eval_command() -> None:
    """Run ``lm_eval`` on ``sys.argv``."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


def finds_model() -> bool:
    """Return whether lm-eval knows ``--model lmsat``."""
    import lm_eval.models  # noqa: F401
    from lm_eval.api.registry import model_registry

    return "lmsat" in model_registry


def finds_tasks() -> list[str]:
    """Return the tasks of lmsat and its plugins that a plain lm-eval finds."""
    from lm_eval.tasks import TaskManager

    return [name for name in TaskManager().all_tasks if name.startswith("lmsat_")]
