"""What a longer context gains: against laws it was made with, least squares by scipy, simulations; in a moved tree."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from positions import TOKENS, positions
from result_trees import save_arrays, write_result
from scipy.optimize import brentq, curve_fit, least_squares

from lmsat_plugin.analysis import find_context
from lmsat_plugin.analysis.scaling_laws.context_gain import context_gain, fit_power_decay
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import Results

X = np.geomspace(1, 500, 18)
WEIGHTS = np.linspace(300, 40, 18)


@pytest.mark.parametrize(("a", "b", "c"), [(4.0, 3.2, 0.47), (2.3, 5.4, 0.62), (0.0, 6.0, 0.1)])
def test_context_recovers_the_law_it_was_made_with(a, b, c):
    found = context_gain(positions(a, b, c, TOKENS), share=0.03)
    assert (found.a, found.b, found.exponent) == pytest.approx((a, b, c), rel=0.02, abs=0.03)

    def gain(t: float) -> float:
        return b * t**-c * (1 - 2**-c) / (a + b * t**-c) - 0.03

    stop = brentq(gain, 1, 1e6) if gain(1e6) < 0 else math.inf
    if stop > 256:
        assert found.stops_at is None
    else:
        assert found.stops_at == pytest.approx(stop, rel=0.02)


def test_context_is_the_weighted_least_squares_of_scipy():
    arrays = positions(2.3, 5.4, 0.62, TOKENS, np.random.default_rng(4))
    found = context_gain(arrays)
    law = [found.positions_K, found.losses_K]
    by_scipy, _ = curve_fit(lambda t, a, b, c: a + b * t**-c, *law, p0=(2, 4, 0.5), sigma=found.stderrs_K)
    assert (found.a, found.b, found.exponent) == pytest.approx(tuple(by_scipy), rel=1e-3)
    tokens = arrays["loss/by_position_tokens"]
    mean = (arrays["loss/by_position"] * tokens).sum() / tokens.sum()
    assert np.average(found.losses_K, weights=found.stderrs_K**-2.0) == pytest.approx(mean)


def test_context_intervals_hold_the_truth_and_noise_is_no_gain():
    rng, exponents, stops, false = np.random.default_rng(5), 0, 0, 0
    stop = (0.05 * 2.3 / (5.4 * (1 - 2**-0.62 - 0.05))) ** (-1 / 0.62)
    for seed in range(60):
        found = context_gain(positions(2.3, 5.4, 0.62, TOKENS, rng), 0.05, repetitions=200, seed=seed)
        exponents += found.exponent_low <= 0.62 <= found.exponent_high
        stops += found.stops_low <= stop <= found.stops_high
        flat = context_gain(positions(3.0, 0.0, 1.0, TOKENS, rng), repetitions=200, seed=seed)
        false += flat.improves
        assert flat.improves == (flat.exponent is not None)
    assert 46 <= exponents <= 60
    assert 46 <= stops <= 60
    assert false <= 15


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({}, "lack loss/by_position"),
        (positions(2, 1, 1, np.ones(8)), "do not show a power law"),
        ({**positions(2, 1, 1, np.ones(64)), "loss/by_position": np.ones(3)}, "do not belong together"),
        (positions(np.nan, 1, 1, np.ones(64)), "not finite"),
    ],
)
def test_bad_arrays(arrays, what):
    with pytest.raises(LmsatError, match=what):
        context_gain(arrays)


def by_scipy(y: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a, b, c, and the weighted sum of squares."""

    def residuals(theta: np.ndarray) -> np.ndarray:
        return np.sqrt(WEIGHTS) * (y - theta[0] - theta[1] * X ** -theta[2])

    fits = [
        least_squares(residuals, start, bounds=([0, 0, 0.02], [np.inf, np.inf, 5]), xtol=1e-14, ftol=1e-14)
        for start in ([1, 1, 0.1], [2, 4, 0.5], [3, 1, 1.5], [0.1, 6, 0.05])
    ]
    best = min(fits, key=lambda fit: fit.cost)
    return best.x, 2 * best.cost


@pytest.mark.parametrize("law", [(2.3, 5.4, 0.62), (4.0, 1.0, 1.4), (0.0, 6.0, 0.1), (3.0, 0.2, 0.3)], ids=str)
def test_the_fit_is_scipys(law):
    a, b, c = law
    rng = np.random.default_rng(0)
    y = a + b * X**-c + 0.3 / np.sqrt(WEIGHTS) * rng.standard_normal((5, len(X)))
    found = fit_power_decay(X, y, WEIGHTS)
    for row, (own_a, own_b, own_c, gain) in zip(y, zip(*found, strict=True), strict=True):
        theta, left = by_scipy(row)
        squares = (WEIGHTS * (row - own_a - own_b * X**-own_c) ** 2).sum()
        assert squares == pytest.approx(left, rel=1e-6)
        np.testing.assert_allclose([own_a, own_b, own_c], theta, rtol=2e-3, atol=2e-3)
        # The gain is over a constant, the weighted mean.
        flat = (WEIGHTS * (row - np.average(row, weights=WEIGHTS)) ** 2).sum()
        assert gain == pytest.approx(flat - left, rel=1e-6)


def test_what_rises_is_flat():
    (a,), (b,), _, (gain,) = fit_power_decay(X, np.log(X)[None], WEIGHTS)
    assert (b, gain) == (0, 0)
    assert a == pytest.approx(np.average(np.log(X), weights=WEIGHTS))


def write_losses(root, step, arrays=None, corpus="text"):
    """Write a result of lmsat_loss, with its arrays if there are any."""
    path = write_result(root, "tiny", step, {"lmsat_loss": {"loss": (4.0, 0.1)}}, corpus=corpus)
    if arrays is not None:
        save_arrays(path, arrays)
    return path


def flat(seed=6):
    return positions(4.0, 0.0, 1.0, TOKENS, np.random.default_rng(seed))


def falling(seed=7):
    return positions(2.3, 5.4, 0.62, TOKENS, np.random.default_rng(seed))


def test_a_tree_that_was_moved(tmp_path, caplog):
    write_losses(tmp_path, 1, flat())
    path = write_losses(tmp_path, 2, falling())
    data = json.loads(path.read_text())
    data["config"]["lmsat"]["arrays"] = f"/nowhere/{data['config']['lmsat']['arrays']}"
    path.write_text(json.dumps(data))
    write_losses(tmp_path, 3, flat()).with_suffix(".safetensors").unlink()
    write_losses(tmp_path, 4)
    first, second = find_context(Results.read(tmp_path))
    assert [(one.step, one.revision, one.model) for one in (first, second)] == [
        (1, "step1", "tiny"),
        (2, "step2", "tiny"),
    ]
    assert (first.gain.improves, second.gain.improves) == (False, True)
    assert second.gain.exponent == pytest.approx(0.62, abs=0.1)
    lost, none = caplog.messages
    assert "step3" in lost
    assert "cannot be read" in lost
    assert "step4" in none
    assert "lmsat_loss has left no arrays" in none


def test_each_corpus_has_its_own_curve(tmp_path):
    write_losses(tmp_path, 1, flat(), corpus="a")
    write_losses(tmp_path, 1, falling(), corpus="b")
    results = Results.read(tmp_path)
    with pytest.raises(LmsatError, match="lmsat_loss on a, b, which do not compare: choose one with --corpus"):
        find_context(results)
    for corpus, improves in (("a", False), ("b", True)):
        (found,) = find_context(results.select([corpus]))
        assert found.gain.improves == improves


@pytest.mark.parametrize("noted", [True, False])
def test_one_file_with_two_corpora(tmp_path, noted):
    """Plain lm_eval measures several corpora in one run, each by a task of its own, and notes each by itself.

    Newer notes name their tasks; otherwise lm-eval's configuration of the task tells the corpus.
    """
    other, own = write_losses(tmp_path, 1, flat(), "a"), write_losses(tmp_path, 2, falling(), "b")
    first, data = (json.loads(path.read_text()) for path in (other, own))
    notes = [one["config"]["lmsat"] for one in (first, data)]
    notes[0]["arrays"], notes[1]["arrays"] = (str(path.with_suffix(".safetensors")) for path in (other, own))
    data["config"]["lmsat"] = notes
    data["results"] = {"loss_on_a": first["results"]["lmsat_loss"], **data["results"]}
    data["configs"] = {"lmsat_loss": {"task": "lmsat_loss", "metadata": {"corpus": "b"}}}
    if noted:
        notes[0]["tasks"], notes[1]["tasks"] = {"loss_on_a": "loss"}, {"lmsat_loss": "loss"}
    own.write_text(json.dumps(data))
    other.unlink()
    results = Results.read(tmp_path)
    rows = results.table[results.table.task == "lmsat_loss"]
    assert rows.corpus.unique().tolist() == ["b"]
    (found,) = find_context(results.select(["b"]))
    assert found.gain.improves
