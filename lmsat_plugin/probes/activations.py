"""The probe of activations: entries of hidden states that are far larger than the others, layer by layer.

Shapes: N tokens, D width of a layer.
"""

from __future__ import annotations

import numpy as np

from lmsat_plugin.errors import DivergedError
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.spectrum import in_float64
from lmsat_plugin.probe import Maxima, Measurement, Need, Probe, ProbeContext, Sums, TokenBatch
from lmsat_plugin.settings import Settings

_ROWS = 8192


class ActivationsProbe(Probe[Settings]):
    """Massive activations, kurtosis and norm of the hidden states, per layer.

    For each state h from which a token of the corpus is predicted: the ratio max|h|/median|h| (massive activations, Sun
    et al. 2024, 2402.17762, who take the median over the layer; here it is of the token's own state; over training
    2508.03616), its excess kurtosis over dimensions, E[(h − E h)⁴]/E[(h − E h)²]² − 3 (Bondarenko et al. 2023; 0 for
    Gaussian entries), and its length ‖h‖. The median of an even number is the mean of the two in the middle. A state
    whose median is zero has no ratio, and one without variance no kurtosis; the details count these as
    ``zero_medians_by_layer`` and ``flat_states_by_layer``.

    Metrics: ``massive_ratio_max``, the greatest ratio over tokens and layers, and ``massive_layer``, the layer that has
    it (0 = embeddings, last = after the final norm); ``kurtosis_max``, the greatest of the layers' mean kurtosis;
    ``norm_mean``, the mean length over tokens and layers.
    Arrays, an entry a layer: ``massive_ratio_by_layer``, the greatest ratio over tokens;
    ``first_position_share_by_layer``, the greatest ratio at the first positions of windows over it, 1 where it stands
    there; ``kurtosis_by_layer`` and ``norm_by_layer``, means over tokens.
    """

    name = "activations"
    cost = "a forward pass, and a twentieth of one for medians"
    needs = Need.HIDDEN_STATES

    def start(self, context: ProbeContext) -> None:
        """Make sums and maxima empty."""
        layers = (len(context.layer_widths),)
        names = ("tokens", "kurtosis", "norms", "zero_medians", "flat")
        self.sums = Sums(context, **dict.fromkeys(names, layers))
        self.maxima = Maxima(context, ratio=layers, first=layers)

    def update_hidden(self, layer: int, states_ND: torch.Tensor, batch: TokenBatch) -> None:
        """Add a layer's states, a few thousand rows at a time."""
        positions = batch.positions_N.to(states_ND.device).split(_ROWS)
        for rows_ND, positions_N in zip(states_ND.split(_ROWS), positions, strict=True):
            self._add(layer, rows_ND.to(torch.promote_types(rows_ND.dtype, torch.float32)), positions_N)

    def _add(self, layer: int, states_ND: torch.Tensor, positions_N: torch.Tensor) -> None:
        magnitudes_ND = states_ND.abs()
        medians_N = median_of_rows(magnitudes_ND)
        without_N = medians_N == 0
        ratios_N = (magnitudes_ND.amax(1) / medians_N).masked_fill(without_N, -torch.inf)
        centred_ND = states_ND - states_ND.mean(1, keepdim=True)
        squares_ND = centred_ND.square_()
        variance_N = squares_ND.mean(1)
        flat_N = variance_N == 0
        kurtosis_N = (squares_ND.square_().mean(1) / variance_N.square() - 3).masked_fill(flat_N, 0)
        values = {
            "tokens": torch.ones_like(variance_N),
            "kurtosis": kurtosis_N,
            "norms": torch.linalg.vector_norm(states_ND, dim=1),
            "zero_medians": without_N,
            "flat": flat_N,
        }
        for name, values_N in values.items():
            total = getattr(self.sums, name)
            total[layer] += in_float64(values_N).sum().to(total.device)
        first_N = ratios_N.masked_fill(positions_N != 0, -torch.inf)
        for name, of_tokens_N in (("ratio", ratios_N), ("first", first_N)):
            greatest = getattr(self.maxima, name)
            greatest[layer] = torch.maximum(greatest[layer], in_float64(of_tokens_N).amax().to(greatest.device))

    def finish(self) -> Measurement:
        """Divide the sums once. Raises `DivergedError` for states that are not finite, naming the layer."""
        sums = {name: value.numpy() for name, value in self.sums.totals().items()}
        maxima = {name: value.numpy() for name, value in self.maxima.totals().items()}
        tokens = sums["tokens"]
        if len(bad := np.flatnonzero(~np.isfinite(sums["norms"]))):
            raise DivergedError(f"the hidden states of layer {bad[0]} of {len(tokens) - 1} are not finite")
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(np.isfinite(maxima["ratio"]), maxima["ratio"], np.nan)
            first = np.where(np.isfinite(maxima["first"]), maxima["first"], np.nan) / ratio
            kurtosis = sums["kurtosis"] / (tokens - sums["flat"])
        norm = sums["norms"] / tokens
        reasons = {}
        if np.isnan(ratio).all():
            text = "the median of every hidden state is zero, so that none has a ratio to it"
            reasons = dict.fromkeys(("massive_ratio_max", "massive_layer"), text)
        if np.isnan(kurtosis).all():
            reasons["kurtosis_max"] = "no hidden state varies over its dimensions"
        metrics = {
            "massive_ratio_max": np.nan if "massive_layer" in reasons else float(np.nanmax(ratio)),
            "massive_layer": 0 if "massive_layer" in reasons else int(np.nanargmax(ratio)),
            "kurtosis_max": np.nan if "kurtosis_max" in reasons else float(np.nanmax(kurtosis)),
            "norm_mean": float(norm.mean()),
        }
        counts = {"zero_medians_by_layer": sums["zero_medians"], "flat_states_by_layer": sums["flat"]}
        return Measurement.with_gaps(
            metrics,
            reasons,
            arrays={
                "massive_ratio_by_layer": ratio,
                "first_position_share_by_layer": first,
                "kurtosis_by_layer": kurtosis,
                "norm_by_layer": norm,
            },
            details={name: count.astype(int).tolist() for name, count in counts.items() if count.any()},
        )


def median_of_rows(values_ND: torch.Tensor) -> torch.Tensor:
    """Return the median of each row, shape [N]; of an even number of columns, the mean of the two in the middle."""
    upper, is_even = values_ND.shape[1] // 2, values_ND.shape[1] % 2 == 0
    if values_ND.device.type == "cpu":
        # Three times as fast as torch's own.
        parted = np.partition(values_ND.numpy(), upper, axis=1)
        above, below = parted[:, upper], parted[:, :upper].max(1) if is_even else parted[:, upper]
        return torch.from_numpy(above + below) / 2
    ordered_ND = values_ND.sort(1).values
    return (ordered_ND[:, upper] + ordered_ND[:, upper - is_even]) / 2
