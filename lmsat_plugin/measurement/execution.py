"""How a measurement runs: device, processes, batch size, and what the checkpoints of a series share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.lazy import torch
from lmsat_plugin.measurement.references import References
from lmsat_plugin.model.memory import is_broken_device
from lmsat_plugin.text.corpora import CorpusSource
from lmsat_plugin.text.windows import Window

# On a CPU a larger batch gains nothing, and the out-of-memory killer, which no program survives, may be called.
_CPU_BATCH_TOKENS = 8192
_AUTO_BATCHES = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes that share the work: this one's rank and their number."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Processes:
        """Return torch.distributed's processes, over all machines, or this one alone."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())
        return cls()

    def gather(self, value: Any) -> list[Any]:
        """Return what each process gives, by rank. All have to call."""
        gathered = [value] * self.size
        if self.size > 1:
            torch.distributed.all_gather_object(gathered, value)
        return gathered

    def together(self, call: Callable[[], T]) -> T:
        """Return what a call, which must not wait for other processes, returns here. All have to call.

        Raises what it raises here, and `LmsatError` where it raises on other processes alone: none goes on to wait for
        one that has failed.
        """
        if self.size == 1:
            return call()
        error: Exception | None = None
        try:
            value = call()
        except Exception as raised:
            if is_broken_device(raised):
                raise  # it can tell the others nothing
            error = raised
        try:
            said = self.gather(error and first_sentence(error))
            if error is not None:
                raise error
        finally:
            # An error and a frame that hold each other would keep the tensors of the run that failed.
            error = None
        if failed := next(filter(None, said), None):
            raise LmsatError(failed)
        return value


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How to run. Only the window and the prefix token change results by more than rounding."""

    device: torch.device
    batch_size: int | str = 1
    max_batch_size: int = 64
    max_length: int | None = None
    prefix_token_id: int | None = None
    autocast: torch.dtype | None = None
    processes: Processes = field(default_factory=Processes)
    corpora: Mapping[str, CorpusSource] = field(default_factory=dict)
    """The registered named corpora."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """From ``probe:NAME`` to the distribution that the probe comes from."""
    references: References | None = None
    """The checkpoints beside which this one is seen."""
    cache: dict[Any, Any] | None = None
    """What the checkpoints of one tokenizer share. A series keeps it; a single measurement needs none."""

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return the result of ``make``; in a series it is called once for a key."""
        return cached(self.cache, key, make)

    def batch_tokens(self, windows: Sequence[Window], length: int) -> int:
        """Return how many padded tokens a batch may hold: ``batch_size`` windows of ``length``.

        ``auto`` aims at eight batches, so that processes have something to share, within ``max_batch_size``; what
        does not fit in memory is halved during the pass. The result does not depend on the number of processes.
        """
        if not str(self.batch_size).startswith("auto"):
            return int(self.batch_size) * length
        most = self.max_batch_size * length
        if self.device.type == "cpu":
            most = min(most, max(_CPU_BATCH_TOKENS, length))
        return max(length, min(most, -(-sum(map(len, windows)) // _AUTO_BATCHES)))


def cached(cache: dict[Any, Any] | None, key: Any, make: Callable[[], Any]) -> Any:
    """Return the result of ``make``, which is called only once for a key if there is a cache."""
    if cache is None:
        return make()
    if key not in cache:
        cache[key] = make()
    return cache[key]
