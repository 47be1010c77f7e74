"""Whether another sample of documents or of questions would show the rise at the end of a run, too.

Shapes: K checkpoints, S stretches before the last one, M documents, R repetitions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmsat_plugin.analysis.saturation.rise import Stretches
from lmsat_plugin.analysis.stats.bootstrap import Simulation, p_value
from lmsat_plugin.analysis.stats.ratio import residuals

_NUMBERS_AT_ONCE = 10_000_000


@dataclass(frozen=True, eq=False)
class Documents:
    """The losses of all K checkpoints of a run on the same M documents."""

    nats_KM: np.ndarray
    """−Σ ln p over a document's tokens."""
    tokens_M: np.ndarray


def p_value_of_documents(documents: Documents, stretches: Stretches, simulation: Simulation) -> float:
    """Return how often samples of documents without a rise show one as large.

    The loss of the last stretch minus that of each other stretch is paired by document. The statistic is the largest of
    these differences in its standard errors. Its distribution without a rise is that of a multiplier bootstrap: each
    document's parts of all differences are multiplied by one normal number. That keeps the correlation between the
    stretches, and so corrects for the choice of the best of many.
    """
    tokens = documents.tokens_M.sum()
    means_MS, last_M = stretches.means(documents.nats_KM.T)
    differences_MS = last_M[:, None] - means_MS
    parts_MS = residuals(differences_MS.T, documents.tokens_M).T / tokens
    number = len(parts_MS)
    errors_S = np.sqrt(number / (number - 1) * (parts_MS**2).sum(0))
    known = errors_S > 0
    if not known.any():
        return 1.0
    parts_MS = parts_MS[:, known] / errors_S[known]
    seen = (differences_MS.sum(0)[known] / tokens / errors_S[known]).max()
    as_large, done, repetitions = 0, 0, simulation.repetitions
    while done < repetitions:
        drawn = min(max(1, _NUMBERS_AT_ONCE // parts_MS.size + 1), repetitions - done)
        as_large += int(((simulation.rng.standard_normal((drawn, number)) @ parts_MS).max(1) >= seen).sum())
        done += drawn
    return p_value(as_large, repetitions)


def p_value_of_stderrs(
    values_K: np.ndarray, stderr_K: np.ndarray, stretches: Stretches, simulation: Simulation
) -> float:
    """Return how often samples without a rise show one as large, from the checkpoints' standard errors alone.

    Checkpoints count as independent samples. On the same questions neighbours agree more, so the true share is smaller.
    """
    variances_K = stderr_K**2
    seen = stretches.rises(values_K[None], variances_K)[0][0]
    noise_RK = stderr_K * simulation.rng.standard_normal((simulation.repetitions, len(values_K)))
    return p_value(int((stretches.rises(noise_RK, variances_K)[0] >= seen).sum()), simulation.repetitions)
