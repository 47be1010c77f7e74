"""The probe of what quantisation of the weights costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from lmsat_plugin.model.changed_weights import quantised
from lmsat_plugin.model.matrices import Matrix
from lmsat_plugin.probes.robustness.passes import LossIncreaseProbe, PassSettings

if TYPE_CHECKING:
    import torch

_BITS = (8, 4, 3)


class QuantizationProbe(LossIncreaseProbe[PassSettings]):
    """How much the loss rises when the weights are rounded to fewer bits (Kumar et al. 2024, 2411.04330; 2411.17691).

    Each linear layer's weights are rounded to the nearest level, symmetrically, with one scale for each group of 128
    along the input (`quantised`); embeddings and the LM head stay as they are, activations too. The papers use GPTQ and
    other methods that look at data, under which the loss rises less. It jumps where the learning rate decays
    (2510.06213).

    Metrics: ``loss_increase_8``, ``loss_increase_4``, ``loss_increase_3``: the loss at so many bits minus the loss, in
    nats per token, over the first ``changed_tokens`` tokens; each with a standard error by document, paired. Null
    where the loss is not finite at so few bits.
    """

    name = "quantization"
    cost = "a pass over 16,384 tokens for each of three widths"
    settings_type = PassSettings

    def changes(self) -> Iterator[tuple[str, Callable[[Matrix], torch.Tensor]]]:
        """Yield the widths."""
        for bits in _BITS:
            yield f"loss_increase_{bits}", partial(_rounded, bits=bits)


def _rounded(matrix: Matrix, *, bits: int) -> torch.Tensor:
    return quantised(matrix.weight_OI, bits)
