"""Run the command ``lm_eval``, tell which of lmsat's models and tasks it finds, and silence it and its libraries."""

from __future__ import annotations

import logging
import sys
from typing import Any

from tqdm import tqdm

from lmsat_plugin.metrics import is_measurement


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

    return [name for name in TaskManager().all_tasks if is_measurement(name)]


class _PassingBar(tqdm):
    """A bar that shows only what takes a while, only on a terminal, and goes when it is done."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        disable = kwargs.pop("disable", False) or not sys.stderr.isatty()
        super().__init__(*args, **{"leave": False, "delay": 5, **kwargs, "disable": disable})


def quiet() -> None:
    """Silence lm-eval, transformers, datasets and huggingface_hub, for commands that show their own progress.

    Their bars are shown only where something takes a while, and of their messages the errors alone.
    """
    import datasets
    import huggingface_hub.utils
    import lm_eval.api.model
    import lm_eval.api.task
    import lm_eval.models.huggingface
    import transformers

    for module in (lm_eval.api.task, lm_eval.api.model, lm_eval.models.huggingface):
        module.tqdm = _PassingBar
    huggingface_hub.utils.disable_progress_bars()
    datasets.disable_progress_bars()
    for name in ("lm_eval", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
