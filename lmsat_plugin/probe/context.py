"""What a probe is given: the checkpoint and the corpus that it measures, and batches of tokens.

Shapes: N tokens of one batch that are scored, D width of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.lm_head import Head, head_weight
from lmsat_plugin.probe.sums import StateMoments
from lmsat_plugin.text.tokenization import TokenizedCorpus
from lmsat_plugin.text.windows import Window

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class FinalStates:
    """This process' share of the final states of a stretch of text."""

    states_ND: torch.Tensor
    targets_N: torch.Tensor
    places_N: torch.Tensor
    """Each token's place in the stretch, which does not depend on the number of processes."""


class TrainingStream(Protocol):
    """Text to train on, which shares nothing with the measured text, as a stream of final states."""

    @property
    def corpus(self) -> TokenizedCorpus:
        """The tokens to train on."""

    @property
    def rank(self) -> int:
        """This process' number among those that share the stream, from 0."""

    def rounds(self, tokens: int, seed: int) -> list[list[Window]]:
        """Return all windows in a random order, in rounds of about ``tokens`` tokens."""

    def states(self, windows: Sequence[Window]) -> FinalStates:
        """Return this process' share of the final states from which the windows' tokens are predicted."""


Computation = Callable[["ProbeContext"], Mapping[str, "torch.Tensor"]]
"""What computes named tensors of a checkpoint, without changing it."""


class NoReferenceError(LmsatError):
    """There is no reference to see a checkpoint beside, or none that can be compared; the message says why."""


class Beside(Protocol):
    """The checkpoints beside which one is seen.

    What is computed under a name is the same for one checkpoint, one text and one ``name``: settings that change it
    belong in the name. It is in the CPU's memory, and each process has all of it.
    """

    def own(self, name: str, compute: Computation, *, of_text: bool = True) -> Mapping[str, torch.Tensor]:
        """Return what ``compute`` returns for the measured checkpoint. A sweep keeps it for those measured later.

        Without ``of_text`` it does not depend on `ProbeContext.corpus`.
        """

    def other(
        self, name: str, compute: Computation, *, back: int = 1, of_text: bool = True
    ) -> Mapping[str, torch.Tensor]:
        """Return what ``compute`` returns, or has returned, for the reference; with ``back=2`` for the reference's own.

        ``compute`` is given a context whose model is the reference's, on the measured corpus. Raises `NoReferenceError`
        where there is none, and where it has another tokenizer.
        """

    def model(self) -> PreTrainedModel:
        """Return the reference's model, which is in memory until the measurement ends. Raises as `other`."""

    def note(self) -> dict[str, Any]:
        """Return what to note of the reference: its name, and what identifies its weights."""


@dataclass(frozen=True, kw_only=True)
class ProbeContext:
    """What a probe measures: one checkpoint on one corpus."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    vocab_rows: int
    """Rows of the head that belong to a token of the tokenizer; the others are padding."""
    device: torch.device
    synchronise: bool
    """Whether several processes share the corpus, so that sums have to be added across processes."""
    layer_widths: tuple[int, ...] = ()
    """Width of each layer's states, embeddings first; empty if no probe of this run needs a forward pass."""
    corpus: TokenizedCorpus | None = None
    """The tokens; None if no probe of this run needs a corpus."""
    head: Head | None = None
    """The map from final states to logits; None if no probe of this run needs final states."""
    open_training: Callable[[int, str | None, int], TrainingStream] | None = None
    """``open_training(tokens, name, least)`` returns text to train on: of the corpus of this name or, for None, of the
    rest of `corpus`. Raises `LmsatError` if there are fewer than ``least`` tokens."""
    losses_again: Callable[[Sequence[Window]], torch.Tensor] | None = None
    """``losses_again(windows)`` runs the model as it is now over windows of `corpus`, and returns the sum of the losses
    of each document up to their last one, nats, float64, over all processes, which all have to call it."""
    pass_again: Callable[..., None] | None = None
    """``pass_again(windows, start=, on_layer=, on_final=, on_losses=, on_predictions=)`` runs the whole of windows of
    `corpus` in this process, and calls what the probe's updates would be; ``start`` before the first batch."""
    beside: Callable[[str], Beside] | None = None
    """``beside(reference)`` returns the checkpoints beside which this one is seen, by what the setting says."""
    name: str = "model"
    """What the checkpoint is called, its revision included."""
    cached: Callable[[Any, Callable[[], Any]], Any] = lambda key, make: make()
    """``cached(key, make)`` returns what ``make`` returns; in a series of checkpoints it is called once for a key."""
    last_moments: StateMoments | None = None
    """Of the last layer, after the final norm. The engine fills it, once for all probes, before their `finish`; None
    before `start` and if no probe of this run needs it."""

    @property
    def head_weight_VD(self) -> torch.Tensor:
        """The LM head's weight, padding included. Raises `LmsatError` for a model without one."""
        return head_weight(self.model)


@dataclass(frozen=True)
class TokenBatch:
    """The scored tokens of one batch, in a fixed order. All tensors are on one device, of length N."""

    targets_N: torch.Tensor
    """Ids of the predicted tokens."""
    documents_N: torch.Tensor
    """Index of each token's document in `ProbeContext.corpus`."""
    positions_N: torch.Tensor
    """Number of tokens in the window before the predicting one: at 0, only the first token is seen."""
    places_N: torch.Tensor | None = None
    """Index of each token in its document."""
    inputs_N: torch.Tensor | None = None
    """Ids of the tokens at which the states stand that predict these: the one before each in its window."""
    draws_N: np.ndarray | None = None
    """Document and position added up, on the CPU, by which tokens can be drawn without waiting for a GPU."""
