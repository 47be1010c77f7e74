"""What a probe is: it declares what it needs, receives it batch by batch, and returns a measurement.

Shapes: N tokens of one batch that are scored, D width of a layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import numpy as np

from lmsat_plugin.metrics import task_of_probe
from lmsat_plugin.model.cross_entropy import TokenPredictions
from lmsat_plugin.probe.context import ProbeContext, TokenBatch
from lmsat_plugin.probe.needs import FORWARD, Need
from lmsat_plugin.settings import Settings
from lmsat_plugin.text.corpora import CorpusSettings
from lmsat_plugin.text.tokenization import TokenizedCorpus
from lmsat_plugin.text.windows import Window

if TYPE_CHECKING:
    import torch


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
    looks_back: ClassVar[bool] = False
    """Whether it asks for what it keeps of the reference's own reference, under its name: ``other(name, back=2)``."""
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

    def pass_windows(self, corpus: TokenizedCorpus) -> Sequence[Window]:
        """Return the first windows of a corpus, as many as the probe needs the pass to cover: by default all.

        The pass covers what the probe of a run needs that needs most.
        """
        return corpus.windows

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
