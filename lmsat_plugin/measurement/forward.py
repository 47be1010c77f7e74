"""One forward pass over a corpus, in smaller batches when memory runs out; states and losses go to callbacks.

Shapes: B windows, T tokens, N scored tokens of a batch, D width of a layer, V rows of the head.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm import tqdm

from lmsat_plugin.lazy import torch, without_gradients
from lmsat_plugin.measurement.execution import Execution
from lmsat_plugin.model.anatomy import Anatomy, check_positions, hidden_states, own_logits
from lmsat_plugin.model.cross_entropy import (
    TokenPredictions,
    losses_of_logits,
    predict_tokens,
    predictions_of_logits,
    token_losses,
)
from lmsat_plugin.model.memory import give_back_memory, is_out_of_memory, no_memory_for
from lmsat_plugin.model.packing import without_packing
from lmsat_plugin.model.spectrum import device_of_float64
from lmsat_plugin.probe import TokenBatch
from lmsat_plugin.text.windows import PaddedBatch, Window, make_batches

if TYPE_CHECKING:
    LayerCallback = Callable[[int, torch.Tensor, TokenBatch], None]
    BatchCallback = Callable[[torch.Tensor, TokenBatch], None]
    PredictionsCallback = Callable[[TokenPredictions, TokenBatch], None]

logger = logging.getLogger(__name__)


def token_bar(name: str, total: int, *, done: int = 0, shown: bool) -> tqdm:
    """Return a progress bar of ``total`` tokens. What takes less than five seconds shows none."""
    unit = {"unit": "token", "unit_scale": True}
    return tqdm(desc=f"lmsat {name}", total=total, initial=done, delay=5, leave=None, disable=not shown, **unit)


@dataclass(frozen=True, kw_only=True)
class PassCallbacks:
    """The functions that a forward pass calls; what nobody asks for is not computed."""

    start: Callable[[], None]
    """Called before the pass, and again if it has to restart: it discards what the others have gathered."""
    on_layer: LayerCallback | None = None
    on_final: BatchCallback | None = None
    on_losses: BatchCallback | None = None
    on_predictions: PredictionsCallback | None = None


class ForwardPass:
    """The forward pass of one model over windows of at most ``length``, in batches shared among the processes.

    The batches do not depend on the number of processes.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        windows: Sequence[Window],
        length: int,
        execution: Execution,
        *,
        show_progress: bool = True,
    ) -> None:
        self.anatomy, self.execution, self.show_progress = anatomy, execution, show_progress
        self.batches = make_batches(windows, execution.batch_tokens(windows, length))

    def run(self, callbacks: PassCallbacks) -> None:
        """Run this process' share. Where memory runs out, restart with each batch in two halves.

        Raises `LmsatError` if memory does not suffice for a single window, and for windows beyond the model's limit.
        """
        processes = self.execution.processes
        share = self.batches[processes.rank :: processes.size]
        # Of all processes' windows, the longest of which come first, so that all raise alike.
        check_positions(self.anatomy.model, len(self.batches[0][0]) if self.batches else 0)
        longest = max((len(window) for windows in share for window in windows), default=0)
        pieces = 1
        while True:
            callbacks.start()
            try:
                self._run_share(share, pieces, callbacks)
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if pieces >= max(map(len, share)):
                    raise no_memory_for(f"one window of {longest} tokens") from error
            # Outside the except clause, whose traceback holds the tensors that have to go.
            pieces *= 2
            logger.warning("Out of memory: the pass begins again with batches split in %d", pieces)
            give_back_memory(self.execution.device)

    def _run_share(self, share: list[list[Window]], pieces: int, callbacks: PassCallbacks) -> None:
        tokens = sum(len(window) for windows in share for window in windows)
        with token_bar("pass", tokens, shown=self.show_progress and self.execution.processes.rank == 0) as bar:
            for windows in share:
                size = -(-len(windows) // pieces)
                for first in range(0, len(windows), size):
                    part = windows[first : first + size]
                    self._run_batch(part, callbacks)
                    bar.update(sum(map(len, part)))

    @without_gradients
    def _run_batch(self, windows: Sequence[Window], callbacks: PassCallbacks) -> None:
        device = self.execution.device
        padded = PaddedBatch.of(windows)
        draws_N = (padded.documents_N + padded.positions_N).numpy()
        padded = padded.to(device)
        batch = TokenBatch(
            targets_N=padded.targets_N,
            documents_N=padded.documents_N,
            positions_N=padded.positions_N,
            places_N=padded.places_N,
            inputs_N=padded.inputs_N,
            draws_N=draws_N,
        )
        inputs_BT, scored_N = padded.inputs_BT, padded.scored_N
        complete = len(scored_N) == inputs_BT.numel()

        def scored(states_BTX: torch.Tensor) -> torch.Tensor:
            flat = states_BTX.flatten(0, 1)
            return flat if complete else flat[scored_N.to(flat.device)]

        def see_layer(layer: int, states_BTD: torch.Tensor) -> None:
            assert callbacks.on_layer is not None
            callbacks.on_layer(layer, scored(states_BTD), batch)

        anatomy, on_states = self.anatomy, None if callbacks.on_layer is None else see_layer
        autocast = self.execution.autocast
        with without_packing(), nullcontext() if autocast is None else torch.autocast(device.type, dtype=autocast):
            if anatomy.head is None:
                final = own_logits(anatomy.model, inputs_BT, on_states)
            else:
                final = hidden_states(anatomy.base, anatomy.blocks, inputs_BT, on_states)
        final = scored(final)
        if callbacks.on_final is not None:
            callbacks.on_final(final, batch)
        self._score(final, batch, callbacks)

    def _score(self, final: torch.Tensor, batch: TokenBatch, callbacks: PassCallbacks) -> None:
        """Hand on what the logits say, as far as it is asked for. ``final`` are states or, without a head, logits."""
        head, device = self.anatomy.head, device_of_float64(self.execution.device)
        predictions = None
        if callbacks.on_predictions is not None:
            if head is None:
                predictions = predictions_of_logits(final, batch.targets_N).to(device)
            else:
                predictions = predict_tokens(final, batch.targets_N, head).to(device)
        if callbacks.on_losses is not None:
            if predictions is not None:
                losses_N = predictions.losses_N
            elif head is None:
                losses_N = losses_of_logits(final, batch.targets_N)
            else:
                losses_N = token_losses(final, batch.targets_N, head)
            callbacks.on_losses(losses_N.to(device), batch)
        if callbacks.on_predictions is not None and predictions is not None:
            callbacks.on_predictions(predictions, batch)
