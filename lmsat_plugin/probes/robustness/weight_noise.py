"""The probe of what noise on the weights costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from lmsat_plugin.model.changed_weights import with_noise
from lmsat_plugin.model.matrices import Matrix
from lmsat_plugin.probes.robustness.passes import LossIncreaseProbe, PassSettings

if TYPE_CHECKING:
    import torch

_PERCENT = (0.5, 1, 2)


class WeightNoiseSettings(PassSettings):
    """The settings of lmsat-weight-noise."""

    noise_draws: PositiveInt = 3
    """The mean over so many draws of the noise is taken; each costs a pass for each of three sizes."""


class WeightNoiseProbe(LossIncreaseProbe[WeightNoiseSettings]):
    """How much the loss rises under Gaussian noise on the weights (Springer et al. 2025, 2503.19206).

    Each linear layer's W becomes W + ε ‖W‖_F/√n · N(0, I), n its number of weights (`with_noise`); embeddings and the
    LM head stay as they are. The same normal numbers are drawn for all sizes ε and all checkpoints of a model, so that
    differences between checkpoints are not those of draws.

    Metrics: ``loss_increase_0.5``, ``loss_increase_1``, ``loss_increase_2``: the loss with ε of so many per cent minus
    the loss, in nats per token, over the first ``changed_tokens`` tokens, the mean of ``noise_draws`` draws; each with
    a standard error by document, paired. Null where the loss is not finite.
    """

    name = "weight_noise"
    cost = "nine passes over 16,384 tokens: three sizes, three draws"
    settings_type = WeightNoiseSettings

    def changes(self) -> Iterator[tuple[str, Callable[[Matrix], torch.Tensor]]]:
        """Yield each size with each draw."""
        for percent in _PERCENT:
            for draw in range(self.settings.noise_draws):
                yield f"loss_increase_{percent}", partial(with_noise, size=percent / 100, draw=draw)
