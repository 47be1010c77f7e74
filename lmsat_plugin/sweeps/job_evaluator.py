"""Load a job's checkpoint and evaluate tasks on it: what every process of a launch does at the same time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from lmsat_plugin.errors import PassingError, first_sentence
from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
from lmsat_plugin.harness.shared_tasks import SharedTasks
from lmsat_plugin.measurement.references import References
from lmsat_plugin.model.memory import is_out_of_memory
from lmsat_plugin.passing import causes
from lmsat_plugin.sweeps.jobs import Job
from lmsat_plugin.sweeps.plan import Plan

# Keys of a sweep that are arguments of lm-eval's ``simple_evaluate``.
_OPTIONS = {
    *("batch_size", "max_batch_size", "device", "limit", "log_samples", "bootstrap_iters", "gen_kwargs"),
    *("apply_chat_template", "fewshot_as_multiturn", "system_instruction"),
}
# What a CUDA context, of which PyTorch does not know, and the display take.
_OWN_BYTES = 2 << 30


class JobEvaluator:
    """One model whose weights change from job to job, and the tasks that jobs share."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._options = plan.config.model_dump(include=_OPTIONS, exclude_none=True)
        self._evaluator: CheckpointEvaluator | None = None
        self._tasks: dict[int, SharedTasks] = {}
        self._tasks_key: Any = None
        self._said = False
        self._references: References | None = None
        """The checkpoints beside which the loaded one is seen."""

    def load(self, job: Job, folder: Path, head_only: bool) -> None:
        """Load a job's weights. Raises `LmsatError` for a checkpoint that cannot be loaded."""
        self._references = None
        if self._evaluator is None or self._evaluator.model_args != job.model_args:
            # The old model gives its memory back before the new one takes any.
            self._evaluator = None
            self._evaluator = CheckpointEvaluator(job.model_args, self._options)
        checkpoint = job.checkpoint
        name, revision, commit = checkpoint.model, checkpoint.revision, checkpoint.commit
        with _on_a_shared_gpu():
            self._evaluator.load(folder, name=name, revision=revision, commit=commit, head_only=head_only)

    def compare(self, references: References) -> None:
        """Have the loaded checkpoint seen beside others."""
        self._references = references

    def evaluate(
        self, job: Job, batch: int, names: Sequence[str]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Evaluate tasks of the plan's batch of that number on the weights that `load` loaded.

        Returns what lm-eval writes, and the arrays; None on other processes than the first. Raises `LmsatError`
        for what cannot be measured.
        """
        assert self._evaluator is not None
        tasks = self._shared_tasks(job, batch)
        shots = self.plan.batches[batch].num_fewshot
        with _on_a_shared_gpu():
            results = self._evaluator.evaluate(
                tasks, names, num_fewshot=shots, model_args=job.load_args, references=self._references
            )
        return None if results is None else (results, self._evaluator.arrays)

    def _shared_tasks(self, job: Job, number: int) -> SharedTasks:
        assert self._evaluator is not None
        # Few-shot contexts depend on the tokenizer where it has a chat template, some tasks' data always.
        key = (self._evaluator.tokenizer_key, job.model_args)
        if self._tasks_key != key:
            self._tasks, self._tasks_key = {}, key
        if number not in self._tasks:
            batch, config = self.plan.batches[number], self.plan.config
            # Files first: they are known by their task's name once they are read.
            files = [entry.task for entry in config.tasks if Path(entry.task).is_file()]
            wanted = [*files, *(unit.task for unit in batch.units)]
            metadata = self.plan.metadata(batch, job)
            if sys.stderr.isatty() and not self._said and any(unit.probe is None for unit in batch.units):
                # Their data may have to be downloaded.
                tqdm.write("loading the data of tasks", file=sys.stderr)
                self._said = True
            self._tasks[number] = SharedTasks(wanted, config.include_path, metadata)
        return self._tasks[number]


@contextmanager
def _on_a_shared_gpu() -> Iterator[None]:
    """Raise `PassingError` where memory runs out because other processes have some of the GPU's."""
    try:
        yield
    except Exception as error:
        others = memory_of_others() if any(is_out_of_memory(each) for each in causes(error)) else 0
        if not others:
            raise
        raise PassingError(
            f"memory does not suffice while other processes hold {others / 1e9:.1f} GB of the GPU's "
            f"({first_sentence(error)}): wait until they have ended, or use another GPU",
            source="the GPU's memory",
        ) from error


def memory_of_others() -> int:
    """Return the bytes of memory that other processes hold on the GPUs of this one; 0 if it is little."""
    if not torch.cuda.is_available():
        return 0
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    devices = range(torch.cuda.device_count()) if alone else [torch.cuda.current_device()]
    used = 0
    for device in devices:
        free, total = torch.cuda.mem_get_info(device)
        used = max(used, total - free - torch.cuda.memory_reserved(device) - _OWN_BYTES)
    return used
