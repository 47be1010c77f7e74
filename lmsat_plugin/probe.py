"""What a probe is: it declares what it needs, receives it batch by batch, and returns a measurement.

Shapes: N tokens of one batch that are scored, D width of a layer.
"""

from __future__ import annotations

import enum
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, cast

import numpy as np

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.lazy import torch, without_gradients
from lmsat_plugin.metrics import task_of_probe
from lmsat_plugin.model.cross_entropy import TokenPredictions
from lmsat_plugin.model.lm_head import Head, head_weight
from lmsat_plugin.model.spectrum import covariance_eigenvalues, device_of_float64, in_float64
from lmsat_plugin.settings import Settings
from lmsat_plugin.text.corpora import CorpusSettings
from lmsat_plugin.text.tokenization import TokenizedCorpus
from lmsat_plugin.text.windows import Window

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Need(enum.Flag):
    """What a probe needs. The engine provides it once for all probes."""

    WEIGHTS = enum.auto()
    """The model's weights, in `ProbeContext.model`."""
    TOKENS = enum.auto()
    """The corpus as tokens, in `ProbeContext.corpus`; no forward pass. A probe that needs no more does not depend on
    windows: a sweep does not measure again when only these change."""
    HIDDEN_STATES = enum.auto()
    """`Probe.update_hidden` for every layer of every batch."""
    TOKEN_LOSSES = enum.auto()
    """`Probe.update_losses` for every batch."""
    GRADIENTS = enum.auto()
    """The probe runs backward passes of its own over `ProbeContext.corpus` in `Probe.finish`."""
    TRAINING_STREAM = enum.auto()
    """Text to train on besides the measured corpus, by `ProbeContext.open_training`."""
    FINAL_STATES = enum.auto()
    """`Probe.update_final` for every batch, and `ProbeContext.head`, which maps these states to logits."""
    HEAD = enum.auto()
    """The LM head's weight, in `ProbeContext.head_weight_VD`. If no probe needs more, nothing else is loaded."""
    LAST_MOMENTS = enum.auto()
    """The sums of the last layer's states and of their products, in `ProbeContext.last_moments`."""
    PREDICTIONS = enum.auto()
    """`Probe.update_predictions` for every batch."""
    LOSSES_AGAIN = enum.auto()
    """Passes of the probe's own in `Probe.finish`, under weights that it changes, by `ProbeContext.losses_again`."""


FORWARD = Need.HIDDEN_STATES | Need.TOKEN_LOSSES | Need.FINAL_STATES | Need.LAST_MOMENTS | Need.PREDICTIONS
WINDOWS = FORWARD | Need.GRADIENTS | Need.TRAINING_STREAM | Need.LOSSES_AGAIN
"""What depends on where the prefix token stands."""
CORPUS = WINDOWS | Need.TOKENS


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


@dataclass
class Measurement:
    """The result of a probe: scalars by name, and arrays by name."""

    metrics: dict[str, float]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    """How it was made, beyond the settings, for the provenance."""

    @classmethod
    def with_gaps(
        cls,
        metrics: Mapping[str, float],
        reasons: Mapping[str, str],
        arrays: Mapping[str, np.ndarray],
        details: Mapping[str, Any] | None = None,
    ) -> Measurement:
        """Return a measurement whose metrics are null where a sentence gives the reason."""
        values: dict[str, Any] = {**metrics, **dict.fromkeys(reasons)}
        noted = {"reasons": dict(reasons)} if reasons else {}
        return cls(values, dict(arrays), {**(details or {}), **noted})


SettingsT = TypeVar("SettingsT", bound=Settings)


class Probe(ABC, Generic[SettingsT]):
    """One measurement of a checkpoint.

    The engine makes an instance for each checkpoint and corpus. It calls `prepare`, then `start`, then for each batch
    those of `update_hidden`, `update_final`, `update_losses` and `update_predictions` that the probe needs, then
    `finish`. A pass that runs out of memory begins again with `start`.
    """

    name: ClassVar[str]
    """The probe's name; its lm-eval task is ``lmsat_<name>``, see `task`."""
    is_expensive: ClassVar[bool] = False
    """Whether it costs about a pass or more: its task has hyphens, which ``lmsat_*`` does not match."""
    cost: ClassVar[str] = ""
    """What it costs at its defaults, in forward passes over the text, as `lmsat probes` lists it."""
    version: ClassVar[int] = 1
    """Raise it when the numbers change for the same checkpoint and settings."""
    needs: ClassVar[Need]
    settings_type: ClassVar[type[Settings]] = Settings
    higher_is_better: ClassVar[Mapping[str, bool]] = {}
    """The direction of metrics that have a better one. Geometry has none."""
    additions: ClassVar[Mapping[str, Collection[str]]] = {}
    """Groups of metrics and arrays that the probe has gained without a new version of the others, by a name.

    A sweep measures a group where results lack it, and lets the others stand. A group that is named as a setting is
    measured where that is true; the other values must not depend on that setting.
    """

    def __init__(self, settings: SettingsT | None = None) -> None:
        self.settings: SettingsT = settings or cast("SettingsT", self.settings_type())

    @classmethod
    def stated_cost(cls) -> str:
        """Return what the probe costs, in words: `cost`, or what its needs tell."""
        if cls.cost:
            return cls.cost
        kinds = {
            FORWARD: "a forward pass",
            Need.GRADIENTS: "forward and backward passes",
            Need.TOKENS: "tokens alone",
            Need.WEIGHTS | Need.HEAD: "weights alone",
        }
        return next((words for needs, words in kinds.items() if cls.needs & needs), "")

    @classmethod
    def asked_additions(cls, settings: Settings) -> list[str]:
        """Return the names of the groups of `additions` that are measured with some settings."""
        return [name for name in cls.additions if getattr(settings, name, True)]

    @classmethod
    def identifying(cls, settings: Settings) -> dict[str, Any]:
        """Return the settings, as JSON has them, without those that only switch `additions` on."""
        return {key: value for key, value in settings.model_dump(mode="json").items() if key not in cls.additions}

    @classmethod
    def task(cls) -> str:
        """Return the name of its lm-eval task."""
        return task_of_probe(cls.name, is_expensive=cls.is_expensive)

    @classmethod
    def other_corpora(cls, settings: SettingsT, corpus: CorpusSettings) -> Mapping[str, CorpusSettings]:
        """Return the texts besides ``corpus`` that the results depend on, by name.

        A sweep measures a checkpoint again when one of these texts changes: a result's identity holds the SHA-256 of
        each, as ``NAME_sha256``.
        """
        return {}

    def prepare(self, context: ProbeContext) -> None:
        """Prepare the pass over the corpus, for example by training. Called once."""

    @abstractmethod
    def start(self, context: ProbeContext) -> None:
        """Reset the state for this checkpoint and corpus."""

    def update_hidden(self, layer: int, states_ND: torch.Tensor, batch: TokenBatch) -> None:
        """Receive a layer's states of a batch: 0 is the embeddings, the last is after the final norm.

        Each row is the state from which the target in ``batch`` is predicted. The tensor belongs to the
        model: copy what you keep.
        """

    def update_final(self, states_ND: torch.Tensor, batch: TokenBatch) -> None:
        """Receive the last layer's states of a batch, after the final norm: the input of `ProbeContext.head`."""

    def update_losses(self, losses_N: torch.Tensor, batch: TokenBatch) -> None:
        """Receive the losses of a batch's tokens, in nats, float64."""

    def update_predictions(self, predictions: TokenPredictions, batch: TokenBatch) -> None:
        """Receive what is read off a batch's logits. The losses among it are those of `update_losses`."""

    @abstractmethod
    def finish(self) -> Measurement:
        """Return the measurement. Called once per process; all processes return the same.

        Raises `LmsatError` for a result that is not finite, naming the layer or the document.
        """


class Sums:
    """Named float64 sums that add up across batches and, when computed, across processes.

    ``Sums(context, total=(), by_layer=(n,))`` makes zeros of these shapes; `update` adds to them. Each is an attribute
    of its name, on `device`.
    """

    _initial: ClassVar[float] = 0.0

    def __init__(self, context: ProbeContext, **shapes: tuple[int, ...]) -> None:
        self.device = device_of_float64(context.device)
        self.names = tuple(shapes)
        self._synchronise = context.synchronise
        for name, shape in shapes.items():
            setattr(self, name, torch.full(shape, self._initial, dtype=torch.float64, device=self.device))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> torch.Tensor:
            """Return the sum of a name, over this process alone."""

    @without_gradients
    def update(self, **increments: torch.Tensor | float) -> None:
        """Add each tensor, or number, to the sum of its name.

        Raises `LmsatError` for a name that the sums were not made with, and for another shape than theirs.
        """
        for name, increment in increments.items():
            if name not in self.names:
                raise LmsatError(f"there is no sum '{name}' (made: {', '.join(self.names)}): make it in start")
            total = getattr(self, name)
            if not isinstance(increment, torch.Tensor):
                increment = torch.as_tensor(increment, dtype=total.dtype)
            # Broadcast, a number would be added to each entry, or entries to a number.
            if increment.shape != total.shape:
                shapes = f"{tuple(increment.shape)}, and the sum has {tuple(total.shape)}"
                raise LmsatError(f"what is added to the sum '{name}' has the shape {shapes}: give both one shape")
            # First the device: it may be the one that has no float64.
            self._join(total, increment.to(total.device).to(total.dtype))

    def totals(self) -> dict[str, torch.Tensor]:
        """Return all sums over all processes, on the CPU, in the shapes that they were made with."""
        sums = {name: getattr(self, name) for name in self.names}
        if self._synchronise and torch.distributed.is_available() and torch.distributed.is_initialized():
            # Its import takes longer than torch's own, and one process needs none of it.
            from torchmetrics.utilities.distributed import gather_all_tensors

            sums = {name: self._merge(torch.stack(gather_all_tensors(each))) for name, each in sums.items()}
        return {name: each.cpu() for name, each in sums.items()}

    @staticmethod
    def _join(total: torch.Tensor, increment: torch.Tensor) -> None:
        """Take an increment into a total, in place."""
        total += increment

    @staticmethod
    def _merge(of_processes: torch.Tensor) -> torch.Tensor:
        """Return the total of all processes, which are the first dimension."""
        return of_processes.sum(0)


class Maxima(Sums):
    """Named float64 maxima over batches and, when computed, over processes; −∞ where there was nothing."""

    _initial = -float("inf")

    @staticmethod
    def _join(total: torch.Tensor, increment: torch.Tensor) -> None:
        torch.maximum(total, increment, out=total)

    @staticmethod
    def _merge(of_processes: torch.Tensor) -> torch.Tensor:
        return of_processes.amax(0)


_ROWS = 8192


@dataclass(frozen=True)
class StateSpectrum:
    """What the moments of n states h of width D say of them.

    Eigenvalues are falling; one of which only its rounding is left is 0.
    """

    tokens: int
    is_finite: bool
    covariance_D: np.ndarray
    """Eigenvalues of the covariance E[(h − E h)(h − E h)ᵀ]."""
    second_moment_D: np.ndarray
    """Eigenvalues of E[h hᵀ]: the squares of the singular values of the matrix of states over n."""


class StateMoments(Sums):
    """Number n, sum and products Σ h hᵀ of a layer's states h, of which several probes make use. Float64."""

    def __init__(self, context: ProbeContext, width: int) -> None:
        super().__init__(context, tokens=(), total=(width,), products=(width, width))

    def add(self, states_ND: torch.Tensor) -> None:
        """Add states, a few thousand rows at a time, since they are of float64."""
        for rows_ND in map(in_float64, states_ND.split(_ROWS)):
            tokens = torch.full_like(rows_ND[0, 0], len(rows_ND))
            self.update(tokens=tokens, total=rows_ND.sum(0), products=rows_ND.T @ rows_ND)

    @functools.cached_property
    def spectrum(self) -> StateSpectrum:
        """The spectrum of the states of all processes. It is computed once; all processes have to ask."""
        sums = self.totals()
        n, total_D, products_DD = float(sums["tokens"]), sums["total"], sums["products"]
        if n == 0 or not torch.isfinite(products_DD).all():
            nothing_D = np.zeros(len(total_D))
            return StateSpectrum(int(n), n == 0, nothing_D, nothing_D)
        centred_D, plain_D = (
            # On a GPU too: a process of torchrun has a single thread.
            covariance_eigenvalues(products_DD.to(self.device) / n, mean_D.to(self.device))
            for mean_D in (total_D / n, torch.zeros_like(total_D))
        )
        return StateSpectrum(int(n), True, centred_D, plain_D)
