"""The processes that ``accelerate launch`` or ``torchrun`` has started: the first calls, the others do the same."""

from __future__ import annotations

import datetime
import os
import re
import threading
import time
from typing import Any

import torch.distributed

from lmsat_plugin.errors import LmsatError, PassingError, first_sentence
from lmsat_plugin.model.memory import is_broken_device
from lmsat_plugin.passing import causes, passing
from lmsat_plugin.sweeps.job_evaluator import JobEvaluator
from lmsat_plugin.sweeps.lifeline import Lifeline

# How long a process waits for the others when a launch begins.
_JOIN = datetime.timedelta(seconds=60)
# How long a process waits for the others to be through with the same checkpoint.
_PATIENCE = datetime.timedelta(hours=1)
# How long one waits for the next checkpoint, which may have to be trained first.
_EVER = datetime.timedelta(weeks=520)
_COLLECTIVE = re.compile(r"\bgloo\b|\bNCCL\b")
# The libraries of a launch may wait for processes that are gone, when they end.
_END_SECONDS = 40.0
# How long a goodbye may take to be read.
_GOODBYE_SECONDS = 0.3


class LaunchLostError(LmsatError):
    """A launch that cannot go on: a process of it, or the connection to it, is gone. No checkpoint's failure."""


class Launch:
    """The processes of a launch, or this one alone. The first calls; the others `serve` it until it is finished."""

    def __init__(self, evaluator: JobEvaluator) -> None:
        self._evaluator = evaluator
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self._group: Any = None
        self._orders: Any = None
        self._lifeline: Lifeline | None = None
        self._failed = False
        if self.size > 1:
            from accelerate import PartialState
            from accelerate.utils import parse_flag_from_env

            # The default of NCCL is ten minutes. Without cpu, accelerate takes each process on CPUs to be alone.
            PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=_PATIENCE)
            try:
                # Until the lifeline is there, only this tells that a process is gone.
                first = torch.distributed.new_group(backend="gloo", timeout=_JOIN)
                self._lifeline = Lifeline(self.rank, self.size, first)
                self._group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
                self._orders = torch.distributed.new_group(backend="gloo", timeout=_EVER)
            except Exception as error:
                raise self._lost(error) from error

    @property
    def lost(self) -> bool:
        """Whether the launch cannot go on."""
        return self._failed or (self._lifeline is not None and self._lifeline.lost is not None)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the evaluator on all processes; return what it returns here.

        Raises what it raises here, `LmsatError` for what it raises elsewhere, and `LaunchLostError` where a process is
        gone. A process that raises while the others wait for it ends the launch.
        """
        if self._lifeline is None:
            return getattr(self._evaluator, method)(*arguments)
        self._broadcast([(method, arguments)])
        return self._run(method, arguments)

    def _broadcast(self, order: list[Any]) -> list[Any]:
        try:
            torch.distributed.broadcast_object_list(order, src=0, group=self._orders)
        except Exception as error:
            raise self._lost(error) from error
        return order

    def _lost(self, error: BaseException) -> LaunchLostError:
        """Return the error of a collective that failed. Raises KeyboardInterrupt where the others were interrupted."""
        time.sleep(_GOODBYE_SECONDS)
        if self._lifeline is not None and self._lifeline.interrupted:
            raise KeyboardInterrupt from error
        self._failed, lost = True, None
        if self._lifeline is not None:
            self._lifeline.stand_down()
            lost = self._lifeline.lost
        end = threading.Timer(_END_SECONDS, os._exit, [1])
        end.daemon = True
        end.start()
        what = f"process {lost} of the launch is gone"
        if lost is None:
            what = f"the processes of the launch cannot reach each other ({first_sentence(error)})"
        return LaunchLostError(f"{what}: start the sweep again")

    def _run(self, method: str, arguments: tuple[Any, ...]) -> Any:
        assert self._lifeline is not None
        call = self._lifeline.begin()
        result = error = None
        try:
            try:
                result = getattr(self._evaluator, method)(*arguments)
            except Exception as raised:
                error = raised
            self._agree(call, error)
            if error is not None:
                raise error
            return result
        finally:
            # An error and a frame that hold each other would keep the tensors of the run that failed.
            error = None

    def _agree(self, call: int, error: Exception | None) -> None:
        """Tell the other processes what a call raised here, and raise `LmsatError` for what it raised elsewhere alone.

        Raises `LaunchLostError` where the processes cannot go on.
        """
        assert self._lifeline is not None
        mine = None
        if error is not None:
            if any(_is_of_a_collective(each) or is_broken_device(each) for each in causes(error)):
                raise self._lost(error) from error
            self._lifeline.raised(call, first_sentence(error))
            trouble = passing(error)
            mine = first_sentence(trouble or error), trouble and trouble.source
        said: list[tuple[str, str | None] | None] = [None] * self.size
        try:
            torch.distributed.all_gather_object(said, mine, group=self._group)
        except Exception as failed:
            raise self._lost(failed) from failed
        self._lifeline.returned()
        # What has ended the call on all may be seen where it began to be trouble that passes.
        for sentence, source in filter(None, said):
            if source is not None and (mine is None or mine[1] is None):
                raise PassingError(sentence, source=source) from error
        if error is None and (other := next(filter(None, said), None)) is not None:
            raise LmsatError(other[0])

    def serve(self) -> None:
        """On the other processes: do what the first calls, until it says that it is finished.

        Raises `LaunchLostError` where the first is gone.
        """
        while True:
            [order] = self._broadcast([None])
            if order is None:
                self._close()
                return
            try:
                self._run(*order)
            except LaunchLostError:
                raise
            except Exception:
                continue  # the first process records it

    def finish(self) -> None:
        """Let the other processes go."""
        if self.size > 1 and self.rank == 0 and not self.lost:
            self._broadcast([None])
            self._close()

    def _close(self) -> None:
        if self._lifeline is not None:
            self._lifeline.close()


def _is_of_a_collective(error: BaseException) -> bool:
    return isinstance(error, torch.distributed.DistError) or _COLLECTIVE.search(str(error)) is not None
