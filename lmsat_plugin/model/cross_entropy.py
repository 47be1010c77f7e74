"""The loss of each token from its hidden state, without holding the logits of a whole batch.

Shapes: N tokens, S rows of logits, D width, V rows of the head.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

from lmsat_plugin.lazy import torch
from lmsat_plugin.model.lm_head import Head
from lmsat_plugin.model.spectrum import in_float64

# The tile of logits that exists at one time, in tokens × rows of the vocabulary. On a CPU it should stay in the cache
# between the product and the exponential; on a GPU it should fill the device.
_CPU_TILE = (2048, 1024)
_GPU_TILE = (8192, 8192)
_LEAST_EXPONENT = -1e6


@dataclass(frozen=True)
class TokenPredictions:
    """What a model predicts at N tokens, from its logits z of all rows of the head, padding included. Of length N."""

    losses_N: torch.Tensor
    """−ln p of the targets in nats, float64."""
    log_sums_N: torch.Tensor
    """ln Σ exp z, float64."""
    entropies_N: torch.Tensor
    """−Σ p ln p in nats, float64."""
    top_N: torch.Tensor
    """The probability of the most probable token, float64."""
    hits_N: torch.Tensor
    """Whether no token is more probable than the target."""

    def to(self, device: torch.device) -> TokenPredictions:
        """Return the predictions on a device."""
        return TokenPredictions(*(getattr(self, field.name).to(device) for field in fields(self)))


class TokenScores:
    """Losses and hits of tokens, gathered from tiles of the logits of their rows.

    Args:
        targets_N: The tokens.
        rows_N: The row of each token, where rows have several; by default each row has one.
        rows: The number of rows.
    """

    def __init__(self, targets_N: torch.Tensor, rows_N: torch.Tensor | None = None, rows: int = 0) -> None:
        self._targets_N, self._rows_N = targets_N, rows_N
        self._target_N = torch.zeros(len(targets_N), device=targets_N.device)
        self._largest_S = torch.full((len(targets_N) if rows_N is None else rows,), -torch.inf, device=targets_N.device)
        self._first_S = torch.zeros(len(self._largest_S), device=targets_N.device, dtype=torch.int64)
        self._log_sums: list[torch.Tensor] = []
        self._means: list[torch.Tensor] = []

    def add(
        self,
        logits_SV: torch.Tensor,
        start: int,
        work_SV: torch.Tensor | None = None,
        spare_SV: torch.Tensor | None = None,
    ) -> None:
        """Take in the logits of the vocabulary's rows from ``start`` on.

        ``work_SV``, of their shape and type, is overwritten, or without it the logits themselves. So is ``spare_SV``,
        which `predictions` needs.
        """
        columns_N = self._targets_N - start
        inside_N = (columns_N >= 0) & (columns_N < logits_SV.shape[1])
        columns_N = columns_N.clamp(0, logits_SV.shape[1] - 1)
        if self._rows_N is None:
            logits_N, first_S = logits_SV.gather(1, columns_N[:, None])[:, 0], None
        else:
            logits_N, first_S = logits_SV[self._rows_N, columns_N], logits_SV.argmax(1)
        work_SV = logits_SV if work_SV is None else work_SV
        log_sum_S, largest_S, mean_S = _log_sum_exp(logits_SV, work_SV, spare_SV)
        if first_S is not None:
            self._first_S = torch.where(largest_S > self._largest_S, first_S + start, self._first_S)
        self._target_N = torch.where(inside_N, logits_N, self._target_N)
        self._largest_S = torch.maximum(self._largest_S, largest_S)
        self._log_sums.append(log_sum_S)
        if mean_S is not None:
            self._means.append(mean_S)

    @property
    def predictions(self) -> TokenPredictions:
        """All that the logits say, where each tile was added with ``spare_SV`` and each row has one token."""
        log_sums_TN = torch.stack(self._log_sums)
        log_sums_N = torch.logsumexp(log_sums_TN, 0)
        means_N = ((log_sums_TN - log_sums_N).exp() * torch.stack(self._means)).sum(0)
        return _predictions(in_float64(self._target_N), in_float64(self._largest_S), log_sums_N, means_N)

    @property
    def losses_N(self) -> torch.Tensor:
        """Each token's −log p in nats, float64."""
        log_sum_S = torch.logsumexp(torch.stack(self._log_sums), 0)
        return (log_sum_S if self._rows_N is None else log_sum_S[self._rows_N]) - in_float64(self._target_N)

    @property
    def hits_N(self) -> torch.Tensor:
        """Whether no token of the vocabulary is more probable than the target, which its row has alone."""
        return self._target_N >= self._largest_S

    @property
    def greedy_N(self) -> torch.Tensor:
        """Whether the target is the first of the most probable tokens, where ``rows_N`` was given."""
        return self._first_S[self._rows_N] == self._targets_N


def tile_shape(device: torch.device) -> tuple[int, int]:
    """Return the tile's number of tokens and of rows of the vocabulary."""
    return _GPU_TILE if device.type == "cuda" else _CPU_TILE


def score_tokens(hidden_ND: torch.Tensor, targets_N: torch.Tensor, head: Head) -> Iterator[TokenScores]:
    """Return the scores of the tokens, a number of them at a time, in order.

    The logits are computed and exponentiated in float32 or better, a tile of tokens × vocabulary at a time; the tiles'
    log-sums are joined in float64. The whole vocabulary is in the denominator, padded rows too. Against logits in
    whole and torch's cross-entropy this takes 1/25 of the memory and 0.6 of the time (benchmarks/loss_memory_speed.py).
    """
    return _in_tiles(hidden_ND, targets_N, head)


def predict_tokens(hidden_ND: torch.Tensor, targets_N: torch.Tensor, head: Head) -> TokenPredictions:
    """Return what the model predicts at tokens: `token_losses` and what else the same tiles of logits give."""
    parts = [scores.predictions for scores in _in_tiles(hidden_ND, targets_N, head, predicts=True)]
    if not parts:
        nothing_N = in_float64(hidden_ND.new_zeros(0))
        return _predictions(nothing_N, nothing_N, nothing_N, nothing_N)
    return TokenPredictions(
        *(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(TokenPredictions))
    )


def score_targets(
    hidden_SD: torch.Tensor, rows_N: torch.Tensor, targets_N: torch.Tensor, head: Head
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log softmax(head(hidden[row]))[target], and whether the target is the first of the most probable tokens.

    A row may have several targets, which share its logits. As `score_tokens` otherwise.

    Args:
        hidden_SD: Final states.
        rows_N: The row of each target, ascending, on the CPU.
        targets_N: The targets.

    Returns nats in float64 and booleans, both of shape [N].
    """
    scores = list(_in_tiles(hidden_SD, targets_N, head, rows_N))
    return -torch.cat([each.losses_N for each in scores]), torch.cat([each.greedy_N for each in scores])


def _in_tiles(
    hidden_SD: torch.Tensor,
    targets_N: torch.Tensor,
    head: Head,
    rows_N: torch.Tensor | None = None,
    *,
    predicts: bool = False,
) -> Iterator[TokenScores]:
    device = head.weight_VD.device
    step, columns = tile_shape(device)
    vocabulary = head.weight_VD.shape[0]
    for first in range(0, len(hidden_SD), step):
        hidden = head.prepare(hidden_SD[first : first + step])
        if rows_N is None:
            scores = TokenScores(targets_N[first : first + step].to(device))
        else:
            low, high = (int(torch.searchsorted(rows_N, bound)) for bound in (first, first + step))
            rows = (rows_N[low:high] - first).to(device)
            scores = TokenScores(targets_N[low:high].to(device), rows, len(hidden))
        spare = hidden.new_empty(len(hidden) * columns, dtype=head.dtype) if predicts else None
        for start in range(0, vocabulary, columns):
            logits = head.logits(hidden, start, min(start + columns, vocabulary))
            scores.add(logits, start, spare_SV=None if spare is None else spare[: logits.numel()].view_as(logits))
        yield scores


def token_losses(hidden_ND: torch.Tensor, targets_N: torch.Tensor, head: Head) -> torch.Tensor:
    """Return −log softmax(head(hidden))[target] in nats, float64, shape [N]; see `score_tokens`."""
    losses = [scores.losses_N for scores in score_tokens(hidden_ND, targets_N, head)]
    return torch.cat(losses) if losses else hidden_ND.new_zeros(0, dtype=torch.float64)


def losses_of_logits(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Return −log softmax(logits)[target] in nats, float64, shape [N], from a model's own logits."""
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    target = in_float64(logits_NV.gather(1, targets_N.to(logits_NV.device)[:, None])[:, 0])
    return _log_sum_exp(logits_NV, torch.empty_like(logits_NV))[0] - target


def predictions_of_logits(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> TokenPredictions:
    """Return what `predict_tokens` returns, from a model's own logits."""
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    targets_N1 = in_float64(logits_NV.gather(1, targets_N.to(logits_NV.device)[:, None]))
    work_NV, spare_NV = torch.empty_like(logits_NV), torch.empty_like(logits_NV)
    log_sums_N, largest_N, means_N = _log_sum_exp(logits_NV, work_NV, spare_NV)
    assert means_N is not None
    return _predictions(targets_N1[:, 0], in_float64(largest_N), log_sums_N, means_N)


def _predictions(
    targets_N: torch.Tensor, largest_N: torch.Tensor, log_sums_N: torch.Tensor, means_N: torch.Tensor
) -> TokenPredictions:
    """Return predictions of the targets' logits, the largest ones, ln Σ exp z, and Σ p z, all float64."""
    return TokenPredictions(
        losses_N=log_sums_N - targets_N,
        log_sums_N=log_sums_N,
        entropies_N=log_sums_N - means_N,
        top_N=(largest_N - log_sums_N).exp(),
        hits_N=targets_N >= largest_N,
    )


def targets_in_logits(
    logits_SV: torch.Tensor, rows_N: torch.Tensor, targets_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `score_targets` returns, from a model's own logits."""
    logits_SV = logits_SV.to(torch.promote_types(logits_SV.dtype, torch.float32))
    rows_N, targets_N = rows_N.to(logits_SV.device), targets_N.to(logits_SV.device)
    found_N, greedy_N = in_float64(logits_SV[rows_N, targets_N]), logits_SV.argmax(1)[rows_N] == targets_N
    return found_N - _log_sum_exp(logits_SV, torch.empty_like(logits_SV))[0][rows_N], greedy_N


def _log_sum_exp(
    logits_NV: torch.Tensor, work_NV: torch.Tensor, spare_NV: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return log Σ exp over each row in float64, each row's maximum, and with ``spare_NV`` Σ p z in float64, shape [N].

    ``work_NV`` and ``spare_NV`` are overwritten. On a CPU, powers of 2 take half the time of powers of e:
    e^z = 2^(z/ln 2).
    """
    largest_N1 = logits_NV.amax(1, keepdim=True)
    # 1/ln 2 in the type of the logits, and the shift of each row, which is taken back as it was rounded.
    factor = _bits_per_nat(logits_NV.dtype)
    shift_N1 = largest_N1 * -factor
    powers_NV = torch.add(shift_N1, logits_NV, alpha=factor, out=work_NV)
    if spare_NV is None:
        powers_NV.exp2_()
    else:
        exponents_NV, powers_NV = powers_NV, torch.exp2(powers_NV, out=spare_NV)
    sums_N = powers_NV.sum(1)
    largest_N = in_float64(largest_N1[:, 0])
    unscaled_N = in_float64(shift_N1[:, 0]) * math.log(2) + largest_N * (factor * math.log(2) - 1)
    means_N = None
    if spare_NV is not None:
        # A logit of −∞ has no part in the mean.
        weighted_N = exponents_NV.clamp_min_(_LEAST_EXPONENT).mul_(powers_NV).sum(1)
        means_N = (in_float64(weighted_N) / in_float64(sums_N) - in_float64(shift_N1[:, 0])) / factor
    return in_float64(sums_N).log_() - unscaled_N, largest_N1[:, 0], means_N


@functools.cache
def _bits_per_nat(dtype: torch.dtype) -> float:
    """Return 1/ln 2 as a type of logits rounds it."""
    return float(torch.tensor(1 / math.log(2), dtype=dtype))
