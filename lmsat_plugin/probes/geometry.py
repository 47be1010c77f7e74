"""The probe of the geometry of hidden states: in how many directions they vary, and how evenly.

Shapes: N tokens, D width of a layer.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from lmsat_plugin.errors import DivergedError
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.spectrum import effective_rank
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext, StateMoments, StateSpectrum, TokenBatch
from lmsat_plugin.settings import Settings

_FIRST_RANK = 11
_LEAST_WIDTH = 64
_BY_LAYER = ("rankme", "effective_rank", "alpha_req", "participation_ratio", "isoscore", "top_direction_share")


class GeometrySettings(Settings):
    """The settings of lmsat_geometry."""

    layers: Literal["last", "all"] = "last"
    """Of which layers the arrays have values; ``all`` costs about a sixth of a forward pass more."""


class GeometryProbe(Probe[GeometrySettings]):
    """In how many directions the states of a layer vary, and how evenly, from the sums of their products.

    λ are the eigenvalues of the covariance of the n states from which the corpus' tokens are predicted, falling, and σ
    the singular values of the matrix H [n, D] of these states as they are, not centred. Sums are float64; λ and σ in
    which only their rounding is left count as 0.

    Metrics, of the last layer, after the final norm: ``rankme`` = exp H(σ/Σσ) (Garrido et al. 2023, 2210.02885; the
    same of centred states is ``effective_rank_last`` of lmsat_anisotropy); ``alpha_req`` = α of λᵢ ∝ i^−α (Agrawal et
    al. 2022), the least-squares slope of ln λ over ln i, here from rank 11 to D/2, null below a width of 64
    and for fewer than D/2 directions; ``participation_ratio`` = (Σλ)²/Σλ²; ``isoscore`` (Rudman et al. 2022,
    2108.07344, Alg. 1), 0 for states along a line, 1 for equal variance in all directions; ``top_direction_share`` =
    λ₁/Σλ. All are null where the states do not vary.
    Arrays, an entry for each layer (0 = embeddings, last = after the final norm), NaN for what is not measured:
    ``effective_rank_by_layer`` = exp H(√λ/Σ√λ) (Roy and Vetterli 2007), ``rankme_by_layer``, ``alpha_req_by_layer``,
    ``participation_ratio_by_layer``, ``isoscore_by_layer``, ``top_direction_share_by_layer``.
    """

    name = "geometry"
    cost = "a forward pass"
    needs = Need.HIDDEN_STATES | Need.LAST_MOMENTS
    settings_type = GeometrySettings

    def start(self, context: ProbeContext) -> None:
        """Make the sums of the layers before the last empty."""
        assert context.last_moments is not None
        *before, _ = context.layer_widths
        wanted = before if self.settings.layers == "all" else []
        self.moments = {layer: StateMoments(context, width) for layer, width in enumerate(wanted)}
        self.last = len(before)
        self.last_moments = context.last_moments

    def update_hidden(self, layer: int, states_ND: torch.Tensor, batch: TokenBatch) -> None:
        """Add the batch's states; those of the last layer are added up for several probes."""
        if layer in self.moments:
            self.moments[layer].add(states_ND)

    def finish(self) -> Measurement:
        """Decompose the covariances. Raises `DivergedError` for states that are not finite."""
        arrays = {f"{name}_by_layer": np.full(self.last + 1, np.nan) for name in _BY_LAYER}
        for layer, moments in (*self.moments.items(), (self.last, self.last_moments)):
            spectrum = moments.spectrum
            if not spectrum.is_finite:
                raise DivergedError(f"the hidden states of layer {layer} of {self.last} are not finite")
            values = describe_states(spectrum)
            for name in _BY_LAYER:
                arrays[f"{name}_by_layer"][layer] = values[name]
        metrics = {name: value for name, value in values.items() if name != "effective_rank"}
        reasons = {name: _why_missing(name, spectrum) for name, value in metrics.items() if math.isnan(value)}
        return Measurement.with_gaps(metrics, reasons, arrays)


def describe_states(spectrum: StateSpectrum) -> dict[str, float]:
    """Return the values of one layer by name, see `GeometryProbe`; NaN for what the states do not give."""
    variances_D = spectrum.covariance_D
    values = dict.fromkeys(_BY_LAYER, math.nan)
    if spectrum.second_moment_D.any():
        values["rankme"] = effective_rank(np.sqrt(spectrum.second_moment_D))
    if spectrum.tokens > 1 and variances_D.any():
        values |= {
            "effective_rank": effective_rank(np.sqrt(variances_D)),
            "alpha_req": decay_exponent(variances_D),
            "participation_ratio": float(variances_D.sum() ** 2 / np.square(variances_D).sum()),
            "isoscore": isoscore(variances_D),
            "top_direction_share": float(variances_D[0] / variances_D.sum()),
        }
    return values


def decay_exponent(eigenvalues_D: np.ndarray) -> float:
    """Return α of λᵢ ∝ i^−α over ranks 11 to D/2; NaN for D < 64 and where one of these eigenvalues is 0."""
    width = len(eigenvalues_D)
    part = eigenvalues_D[_FIRST_RANK - 1 : width // 2]
    if width < _LEAST_WIDTH or not (part > 0).all():
        return math.nan
    ranks = np.log(np.arange(_FIRST_RANK, _FIRST_RANK + len(part)))
    centred = ranks - ranks.mean()
    return float(-(centred @ np.log(part)) / (centred @ centred))


def isoscore(eigenvalues_D: np.ndarray) -> float:
    """Return IsoScore of the eigenvalues of a covariance (Rudman et al. 2022, Alg. 1); NaN for a single dimension.

    Scaled to the length √D, they are at a distance of 0 to √(2(D − √D)) from those of the identity.
    """
    width = len(eigenvalues_D)
    if width < 2:
        return math.nan
    scaled = eigenvalues_D * math.sqrt(width) / np.linalg.norm(eigenvalues_D)
    defect = np.linalg.norm(scaled - 1) / math.sqrt(2 * (width - math.sqrt(width)))
    used = (width - defect**2 * (width - math.sqrt(width))) ** 2 / width**2
    return float((width * used - 1) / (width - 1))


def _why_missing(name: str, spectrum: StateSpectrum) -> str:
    width, directions = len(spectrum.covariance_D), int((spectrum.covariance_D > 0).sum())
    if not directions:
        return f"the states of the last layer of {spectrum.tokens} tokens do not vary: measure more text"
    if name == "alpha_req" and width < _LEAST_WIDTH:
        return f"the slope needs a width of at least {_LEAST_WIDTH}, and the last layer has {width}"
    return (
        f"the states of {spectrum.tokens} tokens vary in {directions} directions, and the slope needs {width // 2}, "
        "half the width: measure more text"
    )
