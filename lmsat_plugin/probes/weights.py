"""The probe of all weight matrices: their norms, ranks, tails and outliers, by kind and layer.

Shapes: M matrices, Q quantities, K kinds of matrix, L layers.
"""

from __future__ import annotations

import math
from dataclasses import astuple, fields

import numpy as np

from lmsat_plugin.errors import DivergedError, LmsatError
from lmsat_plugin.lazy import torch
from lmsat_plugin.measurement.execution import Processes
from lmsat_plugin.model.matrices import Matrix, matrices_of
from lmsat_plugin.model.matrix_statistics import MatrixStatistics, matrix_statistics
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext, Sums
from lmsat_plugin.settings import Settings

_QUANTITIES = tuple(field.name for field in fields(MatrixStatistics))


class WeightsProbe(Probe[Settings]):
    """Singular values and entries of every weight matrix W: of linear layers, experts, embeddings and the LM head.

    Of each matrix, with its singular values s: ``frobenius_norm``, ``spectral_norm`` s₁, ``stable_rank`` = Σs²/s₁²,
    ``effective_rank`` = exp H(s/Σs) (Roy and Vetterli 2007), ``top10_share`` = the ten greatest s over Σs, ``alpha`` =
    exponent of the power law that the tail of the eigenvalues s² follows, and ``alpha_distance``, the fit's
    Kolmogorov-Smirnov distance (Martin and Mahoney's WeightWatcher; Clauset et al. 2009, 0706.1062), ``outlier_ratio``
    = the greatest absolute entry over the 99th percentile. Stacked experts count each by itself. Float64.

    Metrics: ``spectral_norm_max`` and ``outlier_ratio_max``, the greatest of all matrices; ``stable_rank_mean``,
    ``top10_share_mean`` and ``alpha_mean``, the means over all matrices, of ``alpha`` over those that have 20
    eigenvalues above 1e-5, null without any.
    Arrays: each quantity by kind and layer, shape [K, L], the mean over experts, NaN for what is not there; what is in
    no layer, such as the embedding, has its values in the first. The provenance names the ``kinds``.
    """

    name = "weights"
    is_expensive = True
    cost = "no pass; all singular values of the model, about a quarter of a pass"
    needs = Need.WEIGHTS

    def start(self, context: ProbeContext) -> None:
        """Find the matrices."""
        self.context = context
        self.matrices = matrices_of(context.model)
        if not self.matrices:
            raise LmsatError("the model has no weight matrices of floating point: leave out lmsat-weights")

    def finish(self) -> Measurement:
        """Decompose the matrices, each on one of the processes."""
        values_MQ = self._values()
        if (broken := np.isnan(values_MQ[:, 0])).any():
            name = self.matrices[int(broken.argmax())].name
            raise DivergedError(f"the weights of {name} are not finite, or all zero, as are {broken.sum()} matrices")
        by_name = dict(zip(_QUANTITIES, values_MQ.T, strict=True))
        alphas = by_name["alpha"][~np.isnan(by_name["alpha"])]
        kinds = list(dict.fromkeys(matrix.kind for matrix in self.matrices))
        metrics = {
            "spectral_norm_max": float(by_name["spectral_norm"].max()),
            "stable_rank_mean": float(by_name["stable_rank"].mean()),
            "top10_share_mean": float(by_name["top10_share"].mean()),
            "alpha_mean": float(alphas.mean()) if len(alphas) else math.nan,
            "outlier_ratio_max": float(by_name["outlier_ratio"].max()),
        }
        reasons = {} if len(alphas) else {"alpha_mean": "no matrix has 20 eigenvalues above 1e-5"}
        arrays = {name: _by_kind_and_layer(values_M, self.matrices, kinds) for name, values_M in by_name.items()}
        return Measurement.with_gaps(metrics, reasons, arrays, {"kinds": kinds, "matrices": len(self.matrices)})

    def _values(self) -> np.ndarray:
        """Return the quantities of all matrices, shape [M, Q]."""
        shape = (len(self.matrices), len(_QUANTITIES))
        sums = Sums(self.context, values=shape, missing=shape)
        processes = Processes.current() if self.context.synchronise else Processes()
        own_MQ = np.zeros(shape)
        for number in range(processes.rank, len(self.matrices), processes.size):
            own_MQ[number] = astuple(matrix_statistics(self.matrices[number].weight_OI))
        missing_MQ = np.isnan(own_MQ)
        own = torch.from_numpy(np.where(missing_MQ, 0.0, own_MQ))
        sums.update(values=own, missing=torch.from_numpy(missing_MQ.astype(float)))
        totals = sums.totals()
        return np.where(totals["missing"].numpy() > 0, math.nan, totals["values"].numpy())


def _by_kind_and_layer(values_M: np.ndarray, matrices: list[Matrix], kinds: list[str]) -> np.ndarray:
    layers = 1 + max((matrix.layer or 0) for matrix in matrices)
    total_KL, count_KL = np.zeros((len(kinds), layers)), np.zeros((len(kinds), layers))
    for matrix, value in zip(matrices, values_M, strict=True):
        place = kinds.index(matrix.kind), matrix.layer or 0
        total_KL[place] += value
        count_KL[place] += 1
    return np.divide(total_KL, count_KL, out=np.full_like(total_KL, math.nan), where=count_KL > 0)
