"""Load checkpoints and evaluate tasks on them: what every process of a launch does at the same time."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.harness.checkpoint_evaluator import Series
from lmsat_plugin.harness.shared_tasks import SharedTasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from lmsat_plugin.sweeps.plan import Job, Plan

# Keys of a sweep that are arguments of lm-eval's ``simple_evaluate``.
_OPTIONS = {
    *("batch_size", "max_batch_size", "device", "limit", "log_samples", "bootstrap_iters", "gen_kwargs"),
    *("apply_chat_template", "fewshot_as_multiturn", "system_instruction"),
}
# How long a process waits for the others to be through with the same checkpoint.
_PATIENCE = datetime.timedelta(hours=1)


class Measurer:
    """One model whose weights change from job to job, and the tasks that jobs share."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._options = plan.config.model_dump(include=_OPTIONS, exclude_none=True)
        self.series: Series | None = None
        self._tasks: dict[int, SharedTasks] = {}
        self._tasks_key: Any = None

    def load(self, job: Job, folder: Path, head_only: bool) -> None:
        """Load a job's weights. Raises `LmsatError` for a checkpoint that cannot be loaded."""
        if self.series is None or self.series.model_args != job.model_args:
            self.series = None
            self.series = Series(job.model_args, self._options)
        checkpoint = job.checkpoint
        self.series.load(
            folder,
            name=checkpoint.model,
            revision=checkpoint.revision,
            commit=checkpoint.commit,
            head_only=head_only,
        )

    def evaluate(
        self, job: Job, batch: int, names: Sequence[str]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Evaluate tasks of the plan's batch of that number on the weights that `load` loaded.

        Returns what lm-eval writes, and the arrays; None on other processes than the first. Raises `LmsatError`
        for what cannot be measured.
        """
        assert self.series is not None
        assert self.series.lm is not None
        found = self.plan.batches[batch]
        checkpoint = job.checkpoint
        model_args = {"pretrained": checkpoint.pretrained, **job.model_args}
        if checkpoint.commit is not None:
            model_args["revision"] = checkpoint.revision
        tasks = self._shared_tasks(job, batch)
        results = self.series.evaluate(tasks, names, found.num_fewshot, model_args)
        if results is None:
            return None
        arrays = {name: a for outcome in self.series.lm.lmsat_outcomes for name, a in outcome.arrays.items()}
        return results, arrays

    def _shared_tasks(self, job: Job, batch: int) -> SharedTasks:
        assert self.series is not None
        # Few-shot contexts depend on the tokenizer where it has a chat template, some tasks' data always.
        key = (self.series.tokenizer_key, job.model_args)
        if self._tasks_key != key:
            self._tasks, self._tasks_key = {}, key
        if batch not in self._tasks:
            found = self.plan.batches[batch]
            # Files first: they are known by their task's name once they are read.
            given = [entry.task for entry in self.plan.config.tasks if Path(entry.task).is_file()]
            wanted = [*given, *(unit.task for unit in found.units)]
            self._tasks[batch] = SharedTasks(
                wanted, self.plan.config.include_path, self.plan.metadata(found, job)
            )
        return self._tasks[batch]


class Launch:
    """The processes that ``accelerate launch`` or ``torchrun`` has started, or this one alone.

    The first decides and calls; the others `serve` it until it is finished.
    """

    def __init__(self, measurer: Measurer) -> None:
        self._measurer = measurer
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self._group: Any = None
        if self.size > 1:
            from accelerate import PartialState

            PartialState()
            self._group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the measurer on all processes; return what it returns here.

        Raises what it raises here, and `LmsatError` for what it raises elsewhere. A process that does not come
        back within an hour, because it waits for one that failed, ends the launch.
        """
        if self.size == 1:
            return getattr(self._measurer, method)(*arguments)
        torch.distributed.broadcast_object_list([(method, arguments)], src=0, group=self._group)
        return self._run(method, arguments)

    def _run(self, method: str, arguments: tuple[Any, ...]) -> Any:
        result = error = None
        try:
            result = getattr(self._measurer, method)(*arguments)
        except Exception as raised:
            error = raised
        reasons: list[str | None] = [None] * self.size
        mine = None if error is None else first_sentence(error)
        torch.distributed.all_gather_object(reasons, mine, group=self._group)
        if error is not None:
            raise error
        if other := next((reason for reason in reasons if reason), None):
            raise LmsatError(other)
        return result

    def serve(self) -> None:
        """On the other processes: do what the first calls, until it says that it is finished."""
        while True:
            order: list[Any] = [None]
            torch.distributed.broadcast_object_list(order, src=0, group=self._group)
            if order[0] is None:
                return
            try:
                self._run(*order[0])
            except Exception:
                continue  # the first process records it

    def finish(self) -> None:
        """Let the other processes go."""
        if self.size > 1 and self.rank == 0:
            torch.distributed.broadcast_object_list([None], src=0, group=self._group)
