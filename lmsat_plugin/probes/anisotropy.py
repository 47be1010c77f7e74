"""The probe of anisotropy: how similar the directions of a layer's hidden states are."""

from __future__ import annotations

import numpy as np

from lmsat_plugin.errors import DivergedError, LmsatError
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.spectrum import effective_rank, in_float64
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext, Sums, TokenBatch
from lmsat_plugin.settings import Settings

_ROWS = 8192


class AnisotropyProbe(Probe[Settings]):
    """Mean cosine of all pairs of hidden states, per layer (Godey et al. 2024, Sec. 4.1, definition of A).

    A(H) = 1/(n² − n) Σ_{i≠j} cos(hᵢ, hⱼ), exact, from unit vectors u by (‖Σu‖² − n)/(n² − n). H are the n states
    from which the corpus' tokens are predicted. Unit vectors and sums are float64. A state of zero norm, such as the
    embedding of a token for padding, has no direction: n leaves it out, and ``zero_states_by_layer`` among the
    details counts it.

    Metrics: ``anisotropy_last`` (after the final norm), ``anisotropy_mean`` and ``anisotropy_max`` over layers,
    ``effective_rank_last`` = exp H(σ/Σσ), σ the singular values of the last layer's states about their mean
    (Roy and Vetterli 2007). Arrays: ``by_layer`` (index 0 = embeddings, last = after the final norm);
    ``mean_norm_by_layer``, the mean length of the states; ``last_covariance_eigenvalues``, falling.
    """

    name = "anisotropy"
    needs = Need.HIDDEN_STATES | Need.LAST_MOMENTS

    def start(self, context: ProbeContext) -> None:
        """Make the sums empty."""
        widths = context.layer_widths
        self.last = len(widths) - 1
        assert context.last_moments is not None
        self.moments = context.last_moments
        self.sums = Sums(
            context,
            norms=(len(widths),),
            zeros=(len(widths),),
            **{f"units_{layer}": (width,) for layer, width in enumerate(widths)},
        )

    def update_hidden(self, layer: int, states_ND: torch.Tensor, batch: TokenBatch) -> None:
        """Add the batch's unit vectors, a few thousand rows at a time, since they are of float64."""
        for rows_ND in states_ND.split(_ROWS):
            self._add(layer, in_float64(rows_ND))

    def _add(self, layer: int, states_ND: torch.Tensor) -> None:
        norms_N = torch.linalg.vector_norm(states_ND, dim=1)
        zero_N = norms_N == 0
        units = {f"units_{layer}": norms_N.reciprocal().masked_fill(zero_N, 0) @ states_ND}
        norms = norms_N.new_zeros(self.last + 1)
        zeros = torch.zeros_like(norms)
        norms[layer], zeros[layer] = norms_N.sum(), zero_N.sum()
        self.sums.update(norms=norms, zeros=zeros, **units)

    def finish(self) -> Measurement:
        """Turn the sums into mean cosines. Raises `LmsatError` for fewer than two tokens."""
        sums, spectrum = self.sums.totals(), self.moments.spectrum
        n = spectrum.tokens
        if n < 2:
            raise LmsatError("anisotropy needs at least 2 tokens: give a longer corpus or raise max_tokens")
        zeros = sums["zeros"].numpy()
        by_layer = np.full(self.last + 1, np.nan)
        for layer, left in enumerate(n - zeros):
            if left >= 2:
                by_layer[layer] = (float(sums[f"units_{layer}"].square().sum()) - left) / (left * left - left)
        if len(bad := np.flatnonzero(~np.isfinite(by_layer))):
            where = f"the hidden states of layer {bad[0]} of {self.last}"
            if not torch.isfinite(sums["norms"][bad[0]]):
                raise DivergedError(f"{where} are not finite")
            raise LmsatError(
                f"{where} are zero: the checkpoint's weights or its precision are broken; "
                "load it with dtype=float32 or leave it out"
            )
        return Measurement(
            metrics={
                "anisotropy_last": float(by_layer[-1]),
                "anisotropy_mean": float(by_layer.mean()),
                "anisotropy_max": float(by_layer.max()),
                "effective_rank_last": effective_rank(np.sqrt(spectrum.covariance_D)),
            },
            arrays={
                "by_layer": by_layer,
                "mean_norm_by_layer": (sums["norms"] / n).numpy(),
                "last_covariance_eigenvalues": spectrum.covariance_D,
            },
            details={"zero_states_by_layer": [int(count) for count in zeros]} if zeros.any() else {},
        )
