"""Answer lm-eval's requests in smaller batches where memory runs out, without a word to other processes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import clear_torch_cache

from lmsat_plugin.errors import first_sentence
from lmsat_plugin.measurement.execution import Processes
from lmsat_plugin.model.memory import is_out_of_memory, no_memory_for

logger = logging.getLogger(__name__)

T = TypeVar("T")


def with_smaller_batches(lm: HFLM, call: Callable[[], T]) -> T:
    """Return what a call returns, which is made again with half the batch until it fits.

    The call must not wait for other processes, which may have memory enough. An automatic batch size is a fixed one in
    further tries, since finding one asks all processes. Raises `LmsatError` if a batch of one does not fit.
    """
    given = lm.batch_size_per_gpu, lm.max_batch_size
    try:
        while True:
            try:
                return call()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                halve_batch(lm, error)
            # Outside the except clause, whose traceback holds the tensors that have to go.
            if not isinstance(lm.batch_size_per_gpu, int):
                lm.batch_size_per_gpu = lm.max_batch_size
            clear_torch_cache()
    finally:
        if Processes.current().size > 1:
            # All processes have to form the same batches of a text that they share.
            lm.batch_size_per_gpu, lm.max_batch_size = given
        elif not isinstance(given[0], int):
            if isinstance(lm.batch_size_per_gpu, int):
                lm.max_batch_size = lm.batch_size_per_gpu
            lm.batch_size_per_gpu = given[0]


def halve_batch(lm: Any, error: BaseException) -> None:
    """Halve a model's batch. Raises `LmsatError` from the error for a batch of one."""
    automatic = not isinstance(lm.batch_size_per_gpu, int)
    size = lm.max_batch_size if automatic else lm.batch_size_per_gpu
    if size <= 1:
        raise no_memory_for(f"a batch of one ({first_sentence(error)})") from error
    if automatic:
        lm.max_batch_size = size // 2
        lm.batch_sizes = {}
    else:
        lm.batch_size_per_gpu = size // 2
    logger.warning("Out of memory: again with a batch of %d", size // 2)
