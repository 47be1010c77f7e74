"""Emergence against thresholds, noise and curves that are known, and against plain formulas."""

from __future__ import annotations

import itertools
import json
import logging
import math

import numpy as np
import pandas as pd
import pytest
from places import PUBLISHED
from scipy import stats
from scipy.optimize import curve_fit

from lmsat_plugin.analysis.emergence import (
    bits_per_byte,
    find_emergence,
    scores_of,
    size_threshold,
    unigram_nats,
    unigram_normalised_perplexity,
)
from lmsat_plugin.analysis.emergence.curves import Fits, break_curves, smooth_curves
from lmsat_plugin.analysis.emergence.noise import Noise, estimate_noise, smooth_variances
from lmsat_plugin.analysis.emergence.sharing import sharing
from lmsat_plugin.analysis.emergence.two_step import two_step
from lmsat_plugin.errors import LmsatError

SHARED = PUBLISHED
RISES = {
    "line": lambda loss: 0.9 * np.maximum(2.2 - loss, 0),
    "curve": lambda loss: 1.3 * np.maximum(2.2 - loss, 0) ** 1.5,
    "saturating": lambda loss: 0.4 * (1 - np.exp(-np.maximum(2.2 - loss, 0) / 0.2)),
}
SMOOTH = {
    "linear": lambda loss: 0.25 * (3.2 - loss),
    "slow exponential": lambda loss: 0.4 * np.exp(-(loss - 1.75)),
    "exponential": lambda loss: 0.4 * np.exp(-4 * (loss - 1.75)),
    "slow logistic": lambda loss: 0.45 / (1 + np.exp(3 * (loss - 2.1))),
    "logistic": lambda loss: 0.45 / (1 + np.exp(8 * (loss - 2.1))),
}
CHANCE = {"acc": 0.25, "brier_score": 0.75}


def runs_of(rng, models: int | None = None) -> list[np.ndarray]:
    """Return losses of runs of several sizes, which overlap."""
    models = models or int(rng.integers(5, 9))
    runs = []
    for final in np.linspace(1.75, 2.65, models):
        t = np.arange(1, (checkpoints := int(rng.integers(10, 21))) + 1) / checkpoints
        runs.append(final + 0.35 * (t**-0.4 - 1) + rng.normal(0, 0.004, checkpoints))
    return runs


def wandering(rng, checkpoints: int, sd: float, correlation: float) -> np.ndarray:
    covariance = sd**2 * correlation ** abs(np.subtract.outer(np.arange(checkpoints), np.arange(checkpoints)))
    return rng.multivariate_normal(np.zeros(checkpoints), covariance)


def table_of(seed, rise, metric="acc", *, models=None, questions=3000, sd=0.01, correlation=0.7, **columns):
    """Return a CSV's table of noisy scores, ``rise`` above chance."""
    rng = np.random.default_rng(seed)
    tables = []
    for index, losses in enumerate(runs_of(rng, models)):
        gains = rise(losses) + wandering(rng, len(losses), sd, correlation)
        if metric == "acc":
            scores = rng.binomial(questions, np.clip(0.25 + gains, 0, 1)) / questions
        else:
            scores = 0.75 - gains + rng.normal(0, math.sqrt(0.15 / questions), len(losses))
        tables.append(
            pd.DataFrame(
                {"model": f"run-{index}", "step": range(len(losses)), "loss": losses, "score": scores}
            )
        )
    return pd.concat(tables, ignore_index=True).assign(
        task="quiz", metric=metric, chance=CHANCE[metric], n_samples=questions, **columns
    )


def verdict(table, **arguments):
    (found,) = find_emergence(table, **arguments)
    return found


@pytest.mark.parametrize("metric", CHANCE)
@pytest.mark.parametrize("rise", RISES)
def test_thresholds_are_found_and_covered(rise, metric):
    found = [verdict(table_of(seed, RISES[rise], metric)) for seed in range(4)]
    emergent = [one for one in found if one.emergent]
    assert len(emergent) >= 3
    assert sum(one.low <= 2.2 <= one.high for one in emergent) >= len(emergent) - 1
    assert np.median([abs(one.threshold - 2.2) for one in emergent]) < 0.04
    assert np.median([one.high - one.low for one in emergent]) < 0.15


@pytest.mark.parametrize("metric", CHANCE)
@pytest.mark.parametrize("curve", SMOOTH)
def test_smooth_curves_have_no_threshold(curve, metric):
    found = [verdict(table_of(seed, SMOOTH[curve], metric)) for seed in range(4)]
    assert not any(one.emergent for one in found)
    assert all(one.threshold is one.low is one.high is None for one in found)
    if curve != "slow logistic":
        assert sum(one.emergent is False for one in found) >= 3


def test_threshold_beside_an_ordinary_fit():
    table = table_of(1, RISES["line"], sd=0.0, questions=100_000)
    found = verdict(table)
    (eta, _, _), _ = curve_fit(
        lambda loss, eta, rate, base: base + rate * np.maximum(eta - loss, 0),
        table.loss,
        table.score,
        [2.1, 1, 0.25],
    )
    assert found.emergent
    assert found.threshold == pytest.approx(eta, abs=0.01)
    assert found.low < eta < found.high < found.low + 0.05


def test_never_leaving_chance_has_no_threshold():
    found = verdict(table_of(0, lambda loss: 0 * loss))
    assert (found.emergent, found.threshold) == (None, None)
    assert f"below {table_of(0, lambda loss: 0 * loss).loss.min():.3f}" in found.reason


def test_worse_than_chance_improving_to_it_is_not_learning():
    found = verdict(table_of(0, lambda loss: -0.3 * np.maximum(loss - 1.75, 0), "brier_score"))
    assert (found.emergent, found.threshold) == (None, None)
    assert "worse than chance count as chance" in found.reason
    # Beyond chance it is, from where chance is crossed on.
    crossing = [verdict(table_of(seed, lambda loss: 1.0 * (2.2 - loss), "brier_score")) for seed in range(5)]
    assert sum(bool(one.emergent) and abs(one.threshold - 2.2) < 0.06 for one in crossing) >= 4


def test_a_plateau_above_chance_is_no_absence():
    found = verdict(table_of(0, lambda loss: 0.15 + RISES["line"](loss)))
    assert (found.emergent, found.threshold) == (False, None)
    assert "above chance by 0.1" in found.reason
    without = table_of(0, lambda loss: 0.15 + RISES["line"](loss)).drop(columns="chance")
    found = verdict(without)
    assert found.chance is None
    assert found.emergent
    assert "chance is not known" in found.reason


def test_improvement_before_a_break_is_from_the_start():
    found = verdict(table_of(0, lambda loss: 0.1 * (3.0 - loss) - 0.05 + RISES["line"](loss)))
    assert found.emergent is False


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        (lambda table: table[table.model == "run-0"], "the runs of 1 model cannot"),
        (lambda table: table[table.model.isin(["run-0", "run-4"])], "the runs of 2 models cannot"),
        (lambda table: table.groupby("model").head(2), "10 checkpoints are too few"),
        (lambda table: table.assign(loss=2.0), "all alike"),
        (lambda table: table[table.loss > 2.25], "no change|explain the scores alike"),
    ],
)
def test_too_little_to_tell(keep, reason):
    found = verdict(keep(table_of(0, RISES["line"], models=5)))
    assert (found.emergent, found.threshold) == (None, None)
    assert pd.Series([found.reason]).str.contains(reason).all()


def test_one_model_below_the_break_is_not_enough():
    table = table_of(0, RISES["line"], models=5)
    found = verdict(table[(table.loss > 2.25) | (table.model == "run-0")])
    assert found.emergent is None


def test_correlations_are_scipys():
    table = table_of(0, RISES["line"])
    found = verdict(table)
    assert found.spearman == pytest.approx(stats.spearmanr(table.loss, table.score).statistic)
    assert found.pearson == pytest.approx(stats.pearsonr(table.loss, table.score).statistic)
    assert found.pearson < 0


def test_facts_are_json_and_repeat():
    table = table_of(0, RISES["line"])
    facts = verdict(table).to_dict()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert verdict(table.sample(frac=1, random_state=1)).to_dict() == facts


def test_noise_whitens_and_is_estimated():
    rng = np.random.default_rng(0)
    shared, correlation = [], []
    for _ in range(20):
        runs = runs_of(rng, 8)
        losses = np.concatenate(runs)
        ends = np.cumsum([0, *map(len, runs)])
        index = [np.arange(a, b) for a, b in itertools.pairwise(ends)]
        deviations = np.concatenate([wandering(rng, len(run), 0.02, 0.8) for run in runs])
        scores = 0.25 + RISES["curve"](losses) + deviations + rng.normal(0, 0.005, len(losses))
        noise = estimate_noise(losses, scores, np.full(len(losses), 0.005**2), index)
        shared.append(noise.shared)
        correlation.append(noise.correlation)
    assert np.median(shared) == pytest.approx(0.02, rel=0.3)
    assert 0.6 <= np.median(correlation) <= 0.95
    factor = noise.factors[0]
    white = noise.whiten(np.eye(len(losses)))[:, index[0]][index[0]]
    np.testing.assert_allclose(white.T @ factor @ factor.T @ white, np.eye(len(factor)), atol=1e-9)
    np.testing.assert_allclose(noise.deviations_P[index[0]], np.sqrt(np.diag(factor @ factor.T)), rtol=1e-12)


def test_fits_are_generalised_least_squares():
    rng = np.random.default_rng(0)
    losses = np.sort(rng.uniform(1.8, 3.0, 30))
    covariance = 0.01 * 0.6 ** abs(np.subtract.outer(np.arange(30), np.arange(30)))
    noise = Noise((np.arange(30),), (np.linalg.cholesky(covariance),), 0.1, 0.6)
    shapes, _, parameters = break_curves(losses)
    others, _, of_others = smooth_curves(losses)
    fits = Fits.of(np.vstack([shapes, others]), np.concatenate([parameters, of_others]), noise)
    scores = 0.3 - 0.2 * losses + rng.normal(0, 0.1, 30)
    flat, left = fits.sums(noise.whiten(scores[None]))
    precision = np.linalg.inv(covariance)
    for index in (3, 700, len(shapes), len(shapes) + 40, len(shapes) + 300):
        design = np.column_stack([np.ones(30), np.vstack([shapes, others])[index]])
        found = np.linalg.solve(design.T @ precision @ design, design.T @ precision @ scores)
        rest = scores - design @ found
        expected = rest @ precision @ rest if found[1] > 0 else flat[0]
        assert left[0, index] == pytest.approx(expected, rel=1e-6)
    assert shapes.min() == 0
    assert (np.diff(np.vstack([shapes, others]), axis=1) <= 1e-12).all()


def test_scores_that_never_err_do_not_weigh_more():
    losses = np.linspace(2, 3, 40)
    variances = np.where(np.arange(40) % 5 == 0, 0.0, 1e-4)
    smooth = smooth_variances(losses, variances)
    assert smooth.min() >= 0.25e-4


def shifted(seed, by, levels=2):
    """Return losses, scores, the level of each checkpoint and runs, of eight runs whose levels differ."""
    rng = np.random.default_rng(seed)
    runs = [np.sort(rng.uniform(1.8, 2.8, 12))[::-1] for _ in range(8)]
    level = np.repeat(np.arange(8) % levels, 12)
    losses = np.concatenate(runs)
    scores = 0.25 + 0.3 * (2.8 - losses) + by * level + rng.normal(0, 0.01, 96)
    return losses, scores, level, [np.arange(12 * i, 12 * i + 12) for i in range(8)]


def test_sharing_tells_shifted_levels_from_one_curve():
    same = [sharing("tokenizer", *shifted(seed, 0.0)) for seed in range(10)]
    assert all(one.shared for one in same)
    assert sum(one.p_value < 0.1 for one in same) <= 4
    other = sharing("tokenizer", *shifted(0, 0.1))
    assert other.shared is False
    # Half of the checkpoints lie 0.05 above the common curve, half below.
    assert other.effect == pytest.approx(0.05, rel=0.1)
    assert other.p_value < 0.05
    assert sharing("model", *shifted(0, 0.1, levels=8)).shared is False
    assert sharing("model", *shifted(0, 0.0, levels=8)).shared


def test_sharing_statistic_is_f():
    losses, scores, levels, runs = shifted(0, 0.02)
    found = sharing("tokenizer", losses, scores, levels, runs, repetitions=50)
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
    losses, scores, levels, runs = shifted(0, 0.0)
    apart = sharing("tokenizer", losses + 5 * levels, scores, levels, runs)
    assert apart.shared is None
    assert "fewer than 6 checkpoints" in apart.reason
    assert sharing("tokenizer", losses, scores, np.zeros(96), runs).shared is None
    flat = sharing("tokenizer", losses, np.random.default_rng(0).normal(size=96), levels, runs)
    assert flat.shared is None


def test_two_step_foretells_a_sigmoid():
    losses = np.linspace(1.8, 3.2, 60)
    for sign, floor, height, perfect in ((1, 0.25, 0.6, 1.0), (-1, 0.75, -0.6, 0.0)):
        scores = floor + height / (1 + np.exp(4 * (losses - 2.2)))
        found = two_step(losses, scores, floor, perfect, sign)
        assert (found.floor, found.height) == pytest.approx((floor, height), abs=0.01)
        assert (found.middle, found.steepness) == pytest.approx((2.2, 4), rel=0.01)
        assert found.absolute_error < 0.002
        assert found.n_foretold == 15
        np.testing.assert_allclose(found.score(losses), scores, atol=0.002)


def test_two_step_cannot_foretell_a_break():
    losses = np.linspace(1.8, 3.2, 60)
    scores = 0.25 + 0.9 * np.maximum(2.0 - losses, 0) + np.random.default_rng(0).normal(0, 0.003, 60)
    found = two_step(losses, scores, 0.25, 1.0, 1)
    assert found is None or found.absolute_error > 0.03
    assert two_step(losses[:9], scores[:9], 0.25, 1.0, 1) is None


def test_normalised_scores():
    table = table_of(0, RISES["line"], "brier_score")
    (scores,) = scores_of(table)
    np.testing.assert_allclose(scores.normalised(), 1 - scores.table.score / 0.75)
    (scores,) = scores_of(table_of(0, RISES["line"]))
    np.testing.assert_allclose(scores.normalised(), (scores.table.score - 0.25) / 0.75)
    (scores,) = scores_of(table_of(0, RISES["line"]).drop(columns="chance"))
    assert np.isnan(scores.normalised()).all()


def test_chance_is_looked_up():
    table = table_of(0, RISES["line"]).drop(columns="chance").assign(task="mmlu")
    assert verdict(table).chance == 0.25


def test_sampling_variance_from_questions_and_standard_errors():
    table = table_of(0, RISES["line"], questions=400)
    (scores,) = scores_of(table)
    expected = scores.table.score * (1 - scores.table.score) / 400
    np.testing.assert_allclose(scores.table.variance, expected)
    (scores,) = scores_of(table.assign(stderr=0.02))
    np.testing.assert_allclose(scores.table.variance, 0.0004)
    (scores,) = scores_of(table.drop(columns="n_samples"))
    assert not scores.table.variance.any()
    assert verdict(table.drop(columns="n_samples")).emergent


def test_bits_per_byte_and_unigrams():
    # A byte-level model that guesses: eight bits for each byte, whatever the tokens.
    assert bits_per_byte(2 * math.log(256), 50, 100) == pytest.approx(8)
    documents = [np.array([0, 1, 1, 5]), np.array([], dtype=int), np.array([1, 0, 5, 5, 5, 9])]
    tokens = np.concatenate(documents)
    shares = np.bincount(tokens) / len(tokens)
    assert unigram_nats(documents) == pytest.approx(stats.entropy(shares))
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0.1, 0.9, len(tokens))
    product = np.prod(probabilities / shares[tokens]) ** (-1 / len(tokens))
    nats = -np.log(probabilities).mean()
    assert unigram_normalised_perplexity(nats, unigram_nats(documents)) == pytest.approx(product)
    with pytest.raises(LmsatError, match="no tokens"):
        unigram_nats([])
    with pytest.raises(LmsatError, match="0 tokens of 3 bytes"):
        bits_per_byte(1.0, 0, 3)


def test_size_threshold_inverts_the_law():
    floor, scale, exponent = 1.7, 8e5, 0.25
    size = size_threshold(2.2, floor, scale, exponent)
    assert floor + (scale / size) ** exponent == pytest.approx(2.2)
    assert size_threshold(1.7, floor, scale, exponent) == math.inf
    with pytest.raises(LmsatError, match="above 0"):
        size_threshold(2.2, floor, scale, 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop(columns="loss"), "no column 'loss': it needs model, loss, task"),
        (lambda t: t.drop(columns="model"), "no column 'model'"),
        (lambda t: t.assign(model=t.model.where(t.step != 3)), "row 4 lacks a model, task or metric"),
        (lambda t: t.assign(score=np.nan), "no row has a finite number for score"),
        (lambda t: t.assign(score=100 * t.score), "give shares from 0 to 1, not per cent"),
        (lambda t: t.assign(perplexity=2**t.loss), "multiply them by ln 2"),
        (lambda t: t.assign(loss=-t.loss), "must be above 0"),
        (
            lambda t: t.assign(metric="word_perplexity"),
            "improve in a known direction: there are quiz word_perp",
        ),
        (lambda t: t.assign(chance=t.chance + 0.1 * (t.step > 5)), "give one for each task"),
    ],
)
def test_bad_tables_are_one_sentence(change, sentence):
    with pytest.raises(LmsatError, match=sentence):
        find_emergence(change(table_of(0, RISES["line"])))


def test_unknown_factor_and_globs():
    table = table_of(0, RISES["line"])
    with pytest.raises(LmsatError, match="no column 'tokenizer' for a factor: it has model, step"):
        find_emergence(table, factor="tokenizer")
    with pytest.raises(LmsatError, match="match 'mmlu\\*' and '\\*'"):
        find_emergence(table, task="mmlu*")
    assert verdict(table, task="q*", metric="a?c").task == "quiz"


def test_rows_without_numbers_are_left_out(caplog):
    table = table_of(0, RISES["line"])
    table.loc[3, "score"] = np.nan
    with caplog.at_level(logging.WARNING):
        assert verdict(table).n_points == len(table) - 1
    assert "1 of" in caplog.text


def tidy_of(table: pd.DataFrame, **columns) -> pd.DataFrame:
    """Return a table of results with the losses and scores of a CSV's table, and things to leave out."""
    names = {"revision": "step" + table.step.astype(str), "corpus": None, "filter": "none", "num_fewshot": 0}
    base = table[["model", "step", "n_samples"]].assign(**names, **columns)
    parts = [
        base.assign(task="lmsat_loss", metric="loss", value=table.loss, corpus="pile"),
        base.assign(task="lmsat_loss", metric="bits_per_byte", value=table.loss / 3, corpus="pile"),
        base.assign(task="mmlu", metric="acc", value=table.score, higher_is_better=True),
        base.assign(task="wikitext", metric="word_perplexity", value=20.0, higher_is_better=False),
    ]
    return pd.concat(parts, ignore_index=True).assign(stderr=np.nan)


def test_results_are_joined_by_checkpoint(caplog):
    table = table_of(0, RISES["line"])
    expected = verdict(table.assign(task="mmlu"))
    tidy = tidy_of(table, vocab_size=50304).sample(frac=1, random_state=0)
    found = verdict(tidy)
    assert (found.threshold, found.low, found.high) == (expected.threshold, expected.low, expected.high)
    assert not caplog.records
    bits = verdict(tidy, loss="bits_per_byte")
    assert bits.threshold == pytest.approx(expected.threshold / 3)
    other = tidy.assign(vocab_size=np.where(tidy.model == "run-0", 32000, 50304))
    with caplog.at_level(logging.WARNING):
        verdict(other)
    assert "32000 to 50304 tokens" in caplog.text
    several = pd.concat([tidy, tidy[tidy.task == "lmsat_loss"].assign(corpus="c4")])
    with pytest.raises(LmsatError, match="on c4, pile, which do not compare"):
        find_emergence(several)
    with pytest.raises(LmsatError, match=r"no metric 'nats'.*bits_per_byte, loss"):
        find_emergence(tidy, loss="nats")
    with pytest.raises(LmsatError, match="hold no lmsat_loss"):
        find_emergence(tidy[tidy.task == "mmlu"])


def test_shots_and_filters_stand_apart():
    table = table_of(0, RISES["line"])
    tidy = tidy_of(table)
    more = tidy[tidy.task == "mmlu"]
    both = pd.concat([tidy, more.assign(num_fewshot=5), more.assign(filter="strict", metric="exact_match")])
    names = [(one.task, one.metric, one.chance) for one in find_emergence(both)]
    assert names == [
        ("mmlu", "exact_match", 0.0),
        ("mmlu (num_fewshot=0)", "acc", 0.25),
        ("mmlu (num_fewshot=5)", "acc", 0.25),
    ]


def test_chance_that_a_sweep_measured_counts():
    tidy = tidy_of(table_of(0, RISES["line"])).replace({"task": {"mmlu": "quiz"}})
    assert verdict(tidy).chance is None
    guesses = tidy[tidy.metric == "acc"].assign(metric="chance", value=0.25, higher_is_better=None)
    found = verdict(pd.concat([tidy, guesses]))
    assert found.chance == 0.25
    assert "chance is not known" not in found.reason


def test_pythia_shows_no_threshold():
    """Pythia's tasks improve from the start or stay at chance (Du et al. 2024, App. F)."""
    losses = SHARED / "pythia_pile_loss_fig1a.csv"
    if not losses.is_file():
        pytest.skip("needs ../shared/data")
    from lmsat_plugin import load_results

    curve = pd.read_csv(losses)
    results = load_results(SHARED / "pythia-evals")
    results["model"] = "pythia-" + results.model.str.extract(r"-(\d+m)$")[0]
    results = results[results.task.isin(["sciq", "lambada_openai", "piqa", "logiqa"])]
    results = results[(results.metric == "acc") & (results.step >= 5000)].drop(columns="vocab_size")
    for model, rows in results.groupby("model"):
        own = curve[curve.model == model].sort_values("step")
        results.loc[rows.index, "loss"] = np.interp(
            np.log(rows.step.astype(float)), np.log(own.step), own.loss
        )
    found = {one.task: one for one in find_emergence(results.rename(columns={"value": "score"}))}
    assert {name: one.emergent for name, one in found.items()} == {
        "sciq": False,
        "lambada_openai": False,
        "piqa": False,
        "logiqa": None,
    }
    assert found["lambada_openai"].spearman < -0.95
