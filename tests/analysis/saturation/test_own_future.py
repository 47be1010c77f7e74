"""The end of a run by its own curve: against power laws that are known, and verdicts one by one."""

from __future__ import annotations

import numpy as np
import pytest
from training_runs import STEPS, falling, results_of

from lmsat_plugin.analysis.saturation import series_of
from lmsat_plugin.analysis.saturation.own_future import own_future, power_law_losses
from lmsat_plugin.analysis.saturation.preparation import Cells
from lmsat_plugin.analysis.saturation.rise import best_models, p_values, rise_of
from lmsat_plugin.analysis.saturation.trend import rise_model
from lmsat_plugin.analysis.scaling_laws.run_curves import extrapolate
from lmsat_plugin.errors import LmsatError

OPTIONS = {"repetitions": 100, "seed": 0}


def law(t):
    return 2 + 30 * t**-0.4


def test_a_power_law_that_goes_on_gains_what_the_law_says():
    rng = np.random.default_rng(1)
    losses = law(STEPS) * np.exp(0.0005 * rng.standard_normal(len(STEPS)))
    found = own_future(STEPS[:14], losses[:14], STEPS[14:], **OPTIONS)
    assert found.now == pytest.approx(law(STEPS[13]), abs=0.002)
    assert found.gain.value == pytest.approx(law(STEPS[13]) - law(STEPS[27]), abs=0.004)
    assert found.gain.low < law(STEPS[13]) - law(STEPS[27]) < found.gain.high
    assert found.p_saturates < 0.1


def test_a_run_that_has_turned_up_saturates():
    rng = np.random.default_rng(2)
    turned = 3 * np.where(STEPS < 70_000, (STEPS / 70_000) ** -0.1, (STEPS / 70_000) ** 0.2)
    losses = turned * np.exp(0.002 * rng.standard_normal(28))
    found = own_future(STEPS[:22], losses[:22], STEPS[22:], **OPTIONS)
    assert found.p_saturates > 0.9
    assert found.gain.low < turned[21] - turned[27] < found.gain.high < 0


@pytest.mark.parametrize(("rise", "low", "high"), [(0, 0, 0.05), (0.15, 0.3, 1)])
def test_a_turn_that_one_break_cannot_follow_is_seen_in_the_level(rise, low, high):
    """A power law above a floor that later rises is no broken power law: in half of the ends its level stays."""
    losses = falling(np.random.default_rng(2)) + rise * np.clip((np.arange(28) - 14) / 13, 0, None)
    found = own_future(STEPS[:22], losses[:22], STEPS[22:], **OPTIONS)
    assert low <= found.p_saturates <= high


def test_simulated_runs_are_judged_as_single_ones():
    rng = np.random.default_rng(3)
    runs = np.array([falling(rng, phi=0.3) + 0.06 * (np.arange(28) >= 20) * (run % 2) for run in range(6)])
    cells = [Cells.of(STEPS, run) for run in runs]
    assert not any(own.set_aside for own in cells)
    model = rise_model(tuple(STEPS.tolist()), tuple(range(28)))
    most, own = p_values(model, runs, best_models(model, runs), 500)
    single = [rise_of(own, STEPS, run, 500) for own, run in zip(cells, runs, strict=True)]
    assert most == pytest.approx([one.p_value for one in single])
    assert own == pytest.approx([one.own_p_value for one in single])
    assert (most[1::2] < 0.05).all()
    assert (most[::2] > 0.05).all()


def test_the_noise_of_the_last_checkpoint_goes_on():
    """Of AR(1) noise the next value has the mean phi times the last, and the variance 1 - phi^2 times that of all."""
    rng = np.random.default_rng(4)
    noise = np.zeros(150)
    for place in range(1, 150):
        noise[place] = 0.8 * noise[place - 1] + 0.6 * rng.standard_normal()
    noise[-1] = 3
    t = np.arange(1, 151) * 100.0
    found = extrapolate(t, law(t) * np.exp(0.01 * noise), 15_000 + np.arange(1, 21) * 100.0, repetitions=400, seed=0)
    away = np.log(found.losses_RM / found.curve_M)
    assert 0.012 < away[:, 0].mean() < 0.03
    assert away[:, 0].std() < 0.9 * away[:, 19].std()
    assert away[:, 19].mean() == pytest.approx(0, abs=0.002)
    assert away[:, 19].std() == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize(
    ("losses", "later", "words"),
    [
        (law(STEPS), np.array([STEPS[-1] * 10]), "10 % of the run are too little"),
        (law(STEPS[:5]), STEPS[5:], "5 checkpoints cannot tell a curve: measure at least 6"),
        (np.linspace(2, 3, 8), STEPS[8:], "only rises"),
    ],
)
def test_what_cannot_be_extrapolated_is_refused(losses, later, words):
    with pytest.raises(LmsatError, match=words):
        own_future(STEPS[: len(losses)], losses, later, **OPTIONS)


def test_scores_and_perplexities_become_losses_above_0():
    (series,) = series_of(results_of(np.linspace(0.3, 0.6, 28)))
    assert power_law_losses(series) == pytest.approx(1 - series.values_K)
    (series,) = series_of(results_of(np.linspace(30, 20, 28), metric="perplexity", higher=False))
    assert power_law_losses(series) == pytest.approx(np.log(series.values_K))
    (series,) = series_of(results_of(np.linspace(2, 3, 28), metric="logprob_margin"))
    with pytest.raises(LmsatError, match="logprob_margin is 2 to 3"):
        power_law_losses(series)
