"""How much of a layer's variance lies in one direction. N tokens of a batch, D width of a layer."""

from __future__ import annotations

import numpy as np
import torch

from lmsat_plugin import LmsatError, Measurement, Need, Probe, ProbeContext, Settings, Sums, TokenBatch


class PrincipalComponentSettings(Settings):
    """What ``--metadata`` can set."""

    centred: bool = True
    """Take the variance about the mean; false takes it about zero, so that a common direction counts."""


class PrincipalComponentProbe(Probe[PrincipalComponentSettings]):
    """Share of the variance of a layer's n hidden states h that lies along their first principal component.

    share = λ₁ / Σᵢ λᵢ, λ the eigenvalues, falling, of C = Σ h hᵀ / n − μ μᵀ with μ = Σ h / n, or μ = 0 if not
    centred. Between 1/D and 1. The sums are float64; they take L · D² · 8 bytes for L layers.

    Metrics: ``share_last`` (after the final norm), ``share_mean`` and ``share_max`` over layers.
    Array: ``by_layer``, shape [L] (index 0 = embeddings, last = after the final norm).
    """

    name = "principal_component"
    needs = Need.HIDDEN_STATES
    settings_type = PrincipalComponentSettings

    def start(self, context: ProbeContext) -> None:
        """Make the sums empty."""
        shapes: dict[str, tuple[int, ...]] = {"tokens": ()}
        for layer, width in enumerate(context.layer_widths):
            shapes |= {f"sum_{layer}": (width,), f"products_{layer}": (width, width)}
        self.layers = len(context.layer_widths)
        self.sums = Sums(context, **shapes)

    def update_hidden(self, layer: int, states_ND: torch.Tensor, batch: TokenBatch) -> None:
        """Add a batch's states of one layer."""
        states_ND = states_ND.to(self.sums.device, torch.float64)
        self.sums.update(**{f"sum_{layer}": states_ND.sum(0), f"products_{layer}": states_ND.T @ states_ND})
        if layer == 0:
            self.sums.update(tokens=torch.tensor(len(states_ND)))

    def finish(self) -> Measurement:
        """Turn the sums into shares."""
        sums = self.sums.totals()
        by_layer = np.array([self._share(sums, layer) for layer in range(self.layers)])
        metrics = {"share_last": by_layer[-1], "share_mean": by_layer.mean(), "share_max": by_layer.max()}
        return Measurement({key: float(value) for key, value in metrics.items()}, {"by_layer": by_layer})

    def _share(self, sums: dict[str, torch.Tensor], layer: int) -> float:
        mean_D = sums[f"sum_{layer}"] / sums["tokens"]
        covariance_DD = moment_DD = sums[f"products_{layer}"] / sums["tokens"]
        if self.settings.centred:
            covariance_DD = moment_DD - torch.outer(mean_D, mean_D)
        variance = covariance_DD.trace()
        # Of states that are all alike, only rounding is left.
        if not (variance.isfinite() and variance > 1e-12 * moment_DD.trace()):
            raise LmsatError(
                f"the hidden states of layer {layer} are all alike or not finite: "
                "give a longer corpus, or leave the checkpoint out"
            )
        return float(torch.linalg.eigvalsh(covariance_DD)[-1] / variance)
