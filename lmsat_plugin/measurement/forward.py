"""One forward pass over a corpus, for all that want to see it.

Shapes: B windows, T tokens, N scored tokens of a batch, D width of a layer, V rows of the head.
"""

from __future__ import annotations

import gc
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed
from tqdm import tqdm

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.anatomy import Anatomy, hidden_states, own_logits, position_limit
from lmsat_plugin.model.cross_entropy import losses_of_logits, token_losses
from lmsat_plugin.probe import TokenBatch
from lmsat_plugin.text.windows import PaddedBatch, Window, make_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    LayerCallback = Callable[[int, torch.Tensor, TokenBatch], None]
    BatchCallback = Callable[[torch.Tensor, TokenBatch], None]

logger = logging.getLogger(__name__)

# On a CPU a batch beyond this gains nothing and may call the out-of-memory killer, which no program survives.
_CPU_BATCH_TOKENS = 8192
_AUTO_BATCHES = 8


@dataclass(frozen=True)
class Processes:
    """The processes that share a corpus: this one's rank and their number."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Processes:
        """Return torch.distributed's processes, over all machines, or this one alone."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())
        return cls()


def batch_token_budget(
    batch_size: int | str, max_batch_size: int, windows: Sequence[Window], length: int, device: torch.device
) -> int:
    """Return how many padded tokens a batch may hold: ``batch_size`` windows of ``length``.

    ``auto`` aims at eight batches, so that processes have something to share, within ``max_batch_size``; what
    does not fit in memory is halved on the way. The result does not depend on the number of processes.
    """
    if not str(batch_size).startswith("auto"):
        return int(batch_size) * length
    most = max_batch_size * length
    if device.type == "cpu":
        most = min(most, max(_CPU_BATCH_TOKENS, length))
    return max(length, min(most, -(-sum(map(len, windows)) // _AUTO_BATCHES)))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error) for text in ("out of memory", "not enough memory", "can't allocate memory")
    )


@dataclass(frozen=True)
class ForwardPass:
    """The forward pass of one model over windows, in batches, of which each process takes its share."""

    anatomy: Anatomy
    batches: list[list[Window]]
    processes: Processes
    device: torch.device
    autocast: torch.dtype | None = None
    show_progress: bool = True

    @classmethod
    def over(
        cls,
        anatomy: Anatomy,
        windows: Sequence[Window],
        batch_tokens: int,
        processes: Processes,
        device: torch.device,
        autocast: torch.dtype | None = None,
        show_progress: bool = True,
    ) -> ForwardPass:
        """Make the batches, the same whatever the number of processes."""
        return cls(anatomy, make_batches(windows, batch_tokens), processes, device, autocast, show_progress)

    def run(
        self,
        start: Callable[[], None],
        on_layer: LayerCallback | None = None,
        on_final: BatchCallback | None = None,
        on_losses: BatchCallback | None = None,
    ) -> None:
        """Run this process' share. Where memory runs out, begin again with each batch in two halves.

        ``start`` is called before the pass begins, and whenever it begins again: it empties what the callbacks
        have gathered. Raises `LmsatError` if memory does not suffice for a single window.
        """
        share = self.batches[self.processes.rank :: self.processes.size]
        pieces = 1
        while True:
            start()
            try:
                self._run_share(share, pieces, on_layer, on_final, on_losses)
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if pieces >= max(map(len, share)):
                    raise LmsatError(
                        f"memory does not suffice for one window of {max(map(len, (w for b in share for w in b)))} "
                        "tokens: set max_length lower, load with dtype=bfloat16, or use a larger device"
                    ) from error
            except IndexError as error:
                longest = max(map(len, (window for windows in share for window in windows)))
                limit = position_limit(self.anatomy.model)
                if limit is None or longest <= limit:
                    raise
                raise LmsatError(
                    f"max_length={longest} is beyond the {limit} positions that the model has: set it lower"
                ) from error
            # Outside the except clause: the traceback holds the tensors that have to go.
            pieces *= 2
            logger.warning("Out of memory: the pass begins again with batches split in %d", pieces)
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _run_share(
        self,
        share: list[list[Window]],
        pieces: int,
        on_layer: LayerCallback | None,
        on_final: BatchCallback | None,
        on_losses: BatchCallback | None,
    ) -> None:
        total = sum(len(window) for windows in share for window in windows)
        shown = self.show_progress and self.processes.rank == 0
        # Only a pass that takes a while shows a bar.
        with tqdm(
            total=total,
            desc="lmsat pass",
            unit="token",
            unit_scale=True,
            delay=5,
            leave=None,
            disable=not shown,
        ) as bar:
            for windows in share:
                size = -(-len(windows) // pieces)
                for first in range(0, len(windows), size):
                    part = windows[first : first + size]
                    self._run_batch(part, on_layer, on_final, on_losses)
                    bar.update(sum(map(len, part)))

    @torch.no_grad()
    def _run_batch(
        self,
        windows: Sequence[Window],
        on_layer: LayerCallback | None,
        on_final: BatchCallback | None,
        on_losses: BatchCallback | None,
    ) -> None:
        padded = PaddedBatch.of(windows)
        columns = (padded.targets_N, padded.documents_N, padded.positions_N)
        batch = TokenBatch(*(column.to(self.device) for column in columns))
        inputs_BT, scored_N = padded.inputs_BT.to(self.device), padded.scored_N.to(self.device)
        complete = len(scored_N) == inputs_BT.numel()

        def scored(states_BTX: torch.Tensor) -> torch.Tensor:
            flat = states_BTX.flatten(0, 1)
            return flat if complete else flat[scored_N.to(flat.device)]

        def see_layer(layer: int, states_BTD: torch.Tensor) -> None:
            assert on_layer is not None
            on_layer(layer, scored(states_BTD), batch)

        head = self.anatomy.head
        with self._autocast():
            if head is None:
                final = own_logits(self.anatomy.model, inputs_BT, None if on_layer is None else see_layer)
            else:
                base, blocks = self.anatomy.base, self.anatomy.blocks
                final = hidden_states(base, blocks, inputs_BT, None if on_layer is None else see_layer)
        final = scored(final)
        if on_final is not None:
            on_final(final, batch)
        if on_losses is None:
            return
        if head is None:
            losses_N = losses_of_logits(final, batch.targets_N)
        else:
            losses_N = token_losses(final, batch.targets_N, head)
        on_losses(losses_N.to(self.device), batch)

    def _autocast(self) -> AbstractContextManager:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device_type=self.device.type, dtype=self.autocast)
