"""The processes that ``accelerate launch`` or ``torchrun`` has started: the first calls, the others do the same."""

from __future__ import annotations

import datetime
import os
from typing import Any

import torch.distributed

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.sweeps.job_evaluator import JobEvaluator

# How long a process waits for the others to be through with the same checkpoint.
_PATIENCE = datetime.timedelta(hours=1)


class Launch:
    """The processes of a launch, or this one alone. The first calls; the others `serve` it until it is finished."""

    def __init__(self, evaluator: JobEvaluator) -> None:
        self._evaluator = evaluator
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self._group: Any = None
        if self.size > 1:
            from accelerate import PartialState

            PartialState()
            self._group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the evaluator on all processes; return what it returns here.

        Raises what it raises here, and `LmsatError` for what it raises elsewhere. A process that does not come
        back within an hour, because it waits for one that failed, ends the launch.
        """
        if self.size == 1:
            return getattr(self._evaluator, method)(*arguments)
        torch.distributed.broadcast_object_list([(method, arguments)], src=0, group=self._group)
        return self._run(method, arguments)

    def _run(self, method: str, arguments: tuple[Any, ...]) -> Any:
        result = error = None
        try:
            result = getattr(self._evaluator, method)(*arguments)
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
