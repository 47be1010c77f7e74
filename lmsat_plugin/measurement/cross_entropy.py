"""The loss of each token from its hidden state, without ever holding the logits of a batch.

Shapes: N tokens, D width, V rows of the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lmsat_plugin.measurement.surgery import Head

# The tile of logits that exists at one time. On a CPU it should stay in the cache between the product and the
# exponential; on a GPU it should fill the device.
_CPU_TILE = (2048, 1024)
_GPU_TILE = (8192, 8192)


def token_losses(hidden_ND: torch.Tensor, targets_N: torch.Tensor, head: Head) -> torch.Tensor:
    """Return −log softmax(head(hidden))[target] in nats, float64, shape [N].

    The logits are computed and exponentiated in float32 or better, a tile of tokens × vocabulary at a time;
    the tiles' log-sums are joined in float64. The whole vocabulary is in the denominator, padded rows too.
    """
    targets_N = targets_N.to(head.weight_VD.device)
    rows, columns = _GPU_TILE if head.weight_VD.is_cuda else _CPU_TILE
    vocabulary = head.weight_VD.shape[0]
    losses = []
    for start in range(0, len(targets_N), rows):
        hidden = head.prepare(hidden_ND[start : start + rows])
        log_sums = [
            _log_sum_exp(head.logits(hidden, column, min(column + columns, vocabulary)))
            for column in range(0, vocabulary, columns)
        ]
        target = head.target_logits(hidden, targets_N[start : start + rows])
        losses.append(torch.logsumexp(torch.stack(log_sums), 0) - target.double())
    return torch.cat(losses) if losses else hidden_ND.new_zeros(0, dtype=torch.float64)


def losses_of_logits(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Return −log softmax(logits)[target] in nats, float64, shape [N], from a model's own logits."""
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    target = logits_NV.gather(1, targets_N.to(logits_NV.device)[:, None])[:, 0].double()
    return _log_sum_exp(logits_NV.clone()) - target


def _log_sum_exp(logits_NV: torch.Tensor) -> torch.Tensor:
    """Return log Σ exp over each row in float64, shape [N]; the logits are overwritten."""
    largest = logits_NV.amax(1, keepdim=True)
    sums = logits_NV.sub_(largest).exp_().sum(1)
    return sums.double().log_() + largest[:, 0].double()
