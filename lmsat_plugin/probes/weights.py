"""The probe of all weight matrices: their norms, ranks, tails and outliers, and how they change, by kind and layer.

Shapes: M matrices, Q quantities, K kinds of matrix, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from lmsat_plugin.errors import DivergedError, LmsatError
from lmsat_plugin.lazy import torch
from lmsat_plugin.measurement.shared_rows import shared_rows
from lmsat_plugin.model.matrices import Matrix, matrices_of
from lmsat_plugin.model.matrix_changes import MatrixChange, cosine, matrix_change, sample_of
from lmsat_plugin.model.matrix_statistics import MatrixStatistics, matrix_statistics
from lmsat_plugin.model.spectrum import in_float64
from lmsat_plugin.probe import Beside, Measurement, Need, NoReferenceError, Probe, ProbeContext
from lmsat_plugin.settings import Settings

_QUANTITIES = tuple(field.name for field in fields(MatrixStatistics))
_OF_CHANGES = ("relative_change", "change_stable_rank_mean", "change_cosine")
_CHANGES = tuple(field.name for field in fields(MatrixChange))


class WeightsSettings(Settings):
    """The settings of lmsat-weights."""

    reference: Annotated[str, Field(coerce_numbers_to_str=True)] = "previous"
    """The checkpoint from which the weights have changed: as in `SimilaritySettings`; empty for none."""


class WeightsProbe(Probe[WeightsSettings]):
    """Singular values and entries of every weight matrix W: of linear layers, experts, embeddings and the LM head.

    Of each matrix, with its singular values s: ``frobenius_norm``, ``spectral_norm`` s₁, ``stable_rank`` = Σs²/s₁²,
    ``effective_rank`` = exp H(s/Σs) (Roy and Vetterli 2007), ``top10_share`` = the ten greatest s over Σs, ``alpha`` =
    exponent of the power law that the tail of the eigenvalues s² follows, and ``alpha_distance``, the fit's
    Kolmogorov-Smirnov distance (Martin and Mahoney's WeightWatcher; Clauset et al. 2009, 0706.1062), ``outlier_ratio``
    = the greatest absolute entry over the 99th percentile. Stacked experts count each by itself. Float64.

    Beside a reference with the weights R, and ΔW = W − R: ``relative_change`` = ‖ΔW‖/‖R‖ (Frobenius),
    ``change_stable_rank`` and ``change_effective_rank`` of ΔW. With ``reference=previous`` also ``change_cosine``, the
    cosine between ΔW and the change before it, of at most 65,536 entries of each matrix, evenly spread.

    Metrics: ``spectral_norm_max`` and ``outlier_ratio_max``, the greatest of all matrices; ``stable_rank_mean``,
    ``top10_share_mean`` and ``alpha_mean``, the means over all matrices, of ``alpha`` over those that have 20
    eigenvalues above 1e-5, null without any; ``relative_change`` and ``change_cosine`` of all matrices as one vector,
    ``change_stable_rank_mean``, the mean over the matrices that have changed; null without a reference.
    Arrays: each quantity by kind and layer, shape [K, L], the mean over experts, NaN for what is not there; what is in
    no layer, such as the embedding, has its values in the first. The provenance names the ``kinds``.
    """

    name = "weights"
    is_expensive = True
    cost = "no pass; all singular values of the model, a twentieth of a pass over 50,000 tokens; as much for its change"
    needs = Need.WEIGHTS | Need.REFERENCE
    looks_back = True
    settings_type = WeightsSettings

    def start(self, context: ProbeContext) -> None:
        """Find the matrices."""
        self.context = context
        self.matrices = matrices_of(context.model)
        if not self.matrices:
            raise LmsatError("the model has no weight matrices of floating point: leave out lmsat-weights")

    def finish(self) -> Measurement:
        """Decompose the matrices, and their changes, each on one of the processes."""
        values_MQ = self._of_each(len(_QUANTITIES), lambda i: astuple(matrix_statistics(self.matrices[i].weight_OI)))
        if (broken := np.isnan(values_MQ[:, 0])).any():
            name = self.matrices[int(broken.argmax())].name
            others = int(broken.sum()) - 1
            also = f", and of {others} more matrices" if others else ""
            raise DivergedError(f"the weights of {name}{also} are not finite, or all zero")
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
        details: dict[str, Any] = {"kinds": kinds, "matrices": len(self.matrices)}
        if self.settings.reference:
            by_name |= self._changes(metrics, reasons, details)
        arrays = {name: _by_kind_and_layer(values_M, self.matrices, kinds) for name, values_M in by_name.items()}
        return Measurement.with_gaps(metrics, reasons, arrays, details)

    def _changes(
        self, metrics: dict[str, float], reasons: dict[str, str], details: dict[str, Any]
    ) -> dict[str, np.ndarray]:
        """Add the metrics of the changes from the reference, with their notes; return the quantities by matrix."""
        assert self.context.beside is not None
        beside = self.context.beside(self.settings.reference)
        own = beside.own(self.name, _samples, of_text=False)
        try:
            before = self._matrices_of(beside)
            size, norm = (
                math.sqrt(sum(float(in_float64(each).square().sum()) for each in tensors))
                for tensors in (_differences(self.matrices, before), (matrix.weight_OI for matrix in before))
            )
            if not math.isfinite(size):
                raise NoReferenceError("the reference has weights that are not finite")
        except NoReferenceError as error:
            reasons.update(dict.fromkeys(_OF_CHANGES, str(error)))
            return {}
        details["reference"] = beside.note()
        values_MQ = self._of_each(
            len(_CHANGES), lambda i: astuple(matrix_change(self.matrices[i].weight_OI, before[i].weight_OI))
        )
        by_name = dict(zip(_CHANGES, values_MQ.T, strict=True))
        ranks = by_name["change_stable_rank"][~np.isnan(by_name["change_stable_rank"])]
        if norm:
            metrics["relative_change"] = size / norm
        else:
            reasons["relative_change"] = "the reference's weights are all zero"
        if len(ranks):
            metrics["change_stable_rank_mean"] = float(ranks.mean())
        else:
            reasons["change_stable_rank_mean"] = "no matrix has changed"
        try:
            changes = _successive(own, beside)
        except NoReferenceError as error:
            reasons["change_cosine"] = str(error)
            return by_name
        metrics["change_cosine"] = cosine(*zip(*changes, strict=True))
        if math.isnan(metrics["change_cosine"]):
            reasons["change_cosine"] = "one of the two changes is zero"
        return {**by_name, "change_cosine": np.array([cosine([now], [then]) for now, then in changes])}

    def _matrices_of(self, beside: Beside) -> list[Matrix]:
        """Return the reference's matrices. Raises `NoReferenceError` where they are others than the model's."""
        try:
            before = matrices_of(beside.model())
        except LmsatError as error:
            raise NoReferenceError(str(error)) from error
        own, other = ([(each.name, each.weight_OI.shape) for each in found] for found in (self.matrices, before))
        if own != other:
            raise NoReferenceError("the reference has other weight matrices: compare models of one shape")
        return before

    def _of_each(self, quantities: int, compute: Callable[[int], Sequence[float]]) -> np.ndarray:
        """Return quantities of all matrices, shape [M, Q], each matrix by its number on one of the processes."""
        return shared_rows(self.context, (len(self.matrices), quantities), compute)


def _samples(context: ProbeContext) -> dict[str, torch.Tensor]:
    return {matrix.name: sample_of(matrix.weight_OI) for matrix in matrices_of(context.model)}


def _differences(matrices: Sequence[Matrix], before: Sequence[Matrix]) -> Iterator[torch.Tensor]:
    for now, then in zip(matrices, before, strict=True):
        yield in_float64(now.weight_OI) - in_float64(then.weight_OI)


def _successive(own: Mapping[str, torch.Tensor], beside: Beside) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return samples of each matrix' change, and of the change before it."""
    before, long_before = (beside.other("weights", _samples, back=back, of_text=False) for back in (1, 2))
    if not own.keys() == before.keys() == long_before.keys():
        raise NoReferenceError("the checkpoint before the reference has other weight matrices")
    samples = ([in_float64(each[name]) for each in (own, before, long_before)] for name in own)
    return [(now - then, then - long_ago) for now, then, long_ago in samples]


def _by_kind_and_layer(values_M: np.ndarray, matrices: list[Matrix], kinds: list[str]) -> np.ndarray:
    layers = 1 + max((matrix.layer or 0) for matrix in matrices)
    total_KL, count_KL = np.zeros((len(kinds), layers)), np.zeros((len(kinds), layers))
    for matrix, value in zip(matrices, values_M, strict=True):
        place = kinds.index(matrix.kind), matrix.layer or 0
        total_KL[place] += value
        count_KL[place] += 1
    return np.divide(total_KL, count_KL, out=np.full_like(total_KL, math.nan), where=count_KL > 0)
