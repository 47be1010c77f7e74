"""Whether levels of a factor share one curve: against levels that are shifted by hand, and F by plain formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from emergence_scores import made_scores

from lmsat_plugin.analysis.emergence.sharing import sharing


def shifted(seed, by, levels=2):
    """Return the scores of eight runs, whose tokenizers or whose models differ."""
    rng = np.random.default_rng(seed)
    runs = [np.sort(rng.uniform(1.8, 2.8, 12))[::-1] for _ in range(8)]
    level = np.repeat(np.arange(8) % levels, 12)
    losses = np.concatenate(runs)
    scores = 0.25 + 0.3 * (2.8 - losses) + by * level + rng.normal(0, 0.01, 96)
    return made_scores(losses, scores, model=np.repeat(np.arange(8), 12), tokenizer=level)


def test_sharing_tells_shifted_levels_from_one_curve():
    same = [sharing("tokenizer", shifted(seed, 0.0)) for seed in range(10)]
    assert all(one.shared for one in same)
    assert sum(one.p_value < 0.1 for one in same) <= 4
    other = sharing("tokenizer", shifted(0, 0.1))
    assert other.shared is False
    # Half of the checkpoints lie 0.05 above the common curve, half below.
    assert other.effect == pytest.approx(0.05, rel=0.1)
    assert other.p_value < 0.05
    assert sharing("model", shifted(0, 0.1, levels=8)).shared is False
    assert sharing("model", shifted(0, 0.0, levels=8)).shared


def test_sharing_statistic_is_f():
    shifted_scores = shifted(0, 0.02)
    found = sharing("tokenizer", shifted_scores, repetitions=50)
    losses, scores, levels = (shifted_scores.table[name].to_numpy() for name in ("loss", "score", "tokenizer"))
    inside = np.ones(96, dtype=bool)
    for level in (0, 1):
        own = losses[levels == 1 - level]
        inside &= (levels != level) | ((losses >= own.min()) & (losses <= own.max()))
    x, y, v = losses[inside], scores[inside], levels[inside]
    knots = np.append(np.quantile(x, np.linspace(0, 1, 8)[1:-1]), x.max())
    less = np.column_stack([np.ones(len(x)), *(np.maximum(knot - x, 0) for knot in knots)])
    more = np.column_stack([less, v, v * x])
    squares = [np.linalg.lstsq(design, y, rcond=None)[1][0] for design in (less, more)]
    f = (squares[0] - squares[1]) / 2 / (squares[1] / (len(x) - more.shape[1]))
    assert found.statistic == pytest.approx(f, rel=1e-6)


def test_sharing_needs_losses_in_common():
    scores = shifted(0, 0.0)

    def shared(**columns):
        return sharing("tokenizer", replace(scores, table=scores.table.assign(**columns)))

    apart = shared(loss=scores.table.loss + 5 * scores.table.tokenizer)
    assert apart.shared is None
    assert "fewer than 6 checkpoints" in apart.reason
    assert shared(tokenizer=0.0).shared is None
    assert shared(score=np.random.default_rng(0).normal(size=96)).shared is None
