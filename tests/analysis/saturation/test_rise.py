"""The rise of the last stretch above the best: against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from lmsat_plugin.analysis.saturation.rise import Stretches


def test_rises_against_a_loop():
    rng = np.random.default_rng(11)
    values, variances = rng.standard_normal(18), rng.uniform(0.5, 2, 18)
    stretches = Stretches.of(18)
    assert stretches.last == 5
    loop = max(
        (values[13:].mean() - values[i:j].mean())
        / (variances[13:].sum() / 25 + variances[i:j].sum() / (j - i) ** 2) ** 0.5
        for i in range(13)
        for j in range(i + 3, min(i + 6, 14))
    )
    assert stretches.rises(values[None], variances)[0][0] == pytest.approx(loop)
