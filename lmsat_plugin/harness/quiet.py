"""Silence lm-eval, transformers, datasets and huggingface_hub, for commands that show their own progress."""

from __future__ import annotations

import logging
import sys
from typing import Any

import datasets
import huggingface_hub.utils
import lm_eval.api.model
import lm_eval.api.task
import lm_eval.models.huggingface
import transformers
from tqdm import tqdm


class _PassingBar(tqdm):
    """A bar that shows only what takes a while, only on a terminal, and goes when it is done."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        disable = kwargs.pop("disable", False) or not sys.stderr.isatty()
        super().__init__(*args, **{"leave": False, "delay": 5, **kwargs, "disable": disable})


def quiet() -> None:
    """Show neither their bars, unless something takes a while, nor their messages below errors."""
    for module in (lm_eval.api.task, lm_eval.api.model, lm_eval.models.huggingface):
        module.tqdm = _PassingBar
    huggingface_hub.utils.disable_progress_bars()
    datasets.disable_progress_bars()
    for name in ("lm_eval", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
