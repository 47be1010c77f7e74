"""Signal and noise of benchmarks: against pandas, known noise, published data, and what the data do not show."""

from __future__ import annotations

import json
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from benchmark_tables import STEPS, recipes_by_sizes
from places import PUBLISHED, PYTHIA_EVALS

from lmsat_plugin.analysis import find_noise
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.tree import Results

LADDER = PUBLISHED / "olmo_ladder.csv"
Z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)


def by_pandas(table: pd.DataFrame) -> pd.DataFrame:
    """Return the definitions, from a table with size, model, step, score and n_samples."""
    rows = []
    for (task, size), own in table.groupby(["task", "size"]):
        squares, freedom, ends, variances = 0.0, 0, {}, []
        for model, run in own.groupby("model"):
            run = run.sort_values("step")
            last = run.tail(min(max(int((run.step >= 0.8 * run.step.max()).sum()), 5), 30))
            final = run.iloc[-1]
            variances.append(final.score * (1 - final.score) / (final.n_samples - 1))
            if len(last) < 5 or last.step.iloc[0] < 0.5 * run.step.max():
                ends[model] = final.score
                continue
            residuals = last.score - np.polyval(np.polyfit(last.step, last.score, 1), last.step)
            squares, freedom = squares + (residuals**2).sum(), freedom + len(last) - 2
            ends[model] = last.score.mean()
        ends = pd.Series(ends)
        noise = np.sqrt(squares / freedom) if freedom else np.nan
        signal = ends.max() - ends.min() if len(ends) > 1 else np.nan
        stderr = np.sqrt(np.mean(variances))
        rows.append({
            **{"task": task, "size": size, "noise": noise, "signal": signal, "snr": signal / noise, "stderr": stderr},
            **{"relative_noise": noise / ends.mean(), "relative_signal": signal / ends.mean()},
            "mde": Z * np.sqrt(2) * stderr,
        })  # fmt: skip
    return pd.DataFrame(rows).set_index(["task", "size"])


def check(table: pd.DataFrame) -> None:
    expected = by_pandas(table)
    found = find_noise(table)
    assert len(found) == len(expected)
    for one in found:
        for name, value in expected.loc[(one.task, one.size)].items():
            own = getattr(one, name)
            if np.isnan(value):
                assert own is None
                assert one.reasons[name.removeprefix("relative_")]
            else:
                assert own == pytest.approx(value, rel=1e-9), name


def test_the_definitions_by_pandas():
    check(recipes_by_sizes())
    # Unevenly spaced, of several lengths, some too short.
    table = recipes_by_sizes(seed=1).sample(frac=0.6, random_state=2)
    check(table[~((table.model == "c4-60M") & (table.step > 4000))])


@pytest.mark.skipif(not LADDER.exists(), reason="the published ladder is not here")
def test_the_published_ladder_by_pandas():
    table = pd.read_csv(LADDER)
    check(table)
    found = {(one.task, one.size): one for one in find_noise(table)}
    assert len(found) == 24
    assert found["hellaswag_val", "1B"].worth_running
    assert not found["openbookqa_test", "1B"].worth_running
    assert found["hellaswag_val", "13B"].reasons["signal"] == "there is one model of this size"


@pytest.mark.skipif(not PYTHIA_EVALS.exists(), reason="the published scores are not here")
def test_published_scores_of_pythia():
    found = {one.metric: one for one in find_noise(Results.read(PYTHIA_EVALS), task="lambada_openai")}
    lambada = found["acc"]
    # The number of questions follows from score and standard error.
    assert (lambada.n_questions, lambada.size, lambada.several_sizes) == (5153, "70M to 410M", True)
    assert lambada.worth_running
    assert lambada.snr > 20
    assert found["ppl"].n_questions is None
    assert found["ppl"].mde > 0


def test_the_noise_that_was_put_in_is_found():
    found = find_noise(recipes_by_sizes(noise=0.004))
    assert [one.noise for one in found] == [pytest.approx(0.004, rel=0.35)] * 3
    assert [one.signal for one in found] == [pytest.approx(0.1, abs=0.01)] * 3
    assert all(one.snr == one.signal / one.noise for one in found)
    # Scores that rise along a line have none.
    flat = find_noise(recipes_by_sizes(noise=0.0))
    assert all(one.noise < 1e-12 for one in flat)


def test_decisions_at_a_small_size_are_compared_with_those_at_the_largest():
    table = recipes_by_sizes(noise=0.0)
    swapped = table.model.isin(["c4-60M", "dolma-60M"])
    other = table.assign(score=table.score.where(~swapped, table.score - 0.06 * (table.model == "dolma-60M")))
    small, middle, large = find_noise(other)
    # Of three pairs one has another order.
    assert (small.decision_accuracy, small.decision_size, small.decision_pairs) == (pytest.approx(2 / 3), "1B", 3)
    assert middle.decision_accuracy == 1.0
    assert large.decision_accuracy is None
    assert "no larger size" in large.reasons["decision_accuracy"]
    # A column names the recipes of models whose names do not.
    named = other.assign(recipe=other.model.str.split("-").str[0], model=other.model.map(hash).astype(str))
    assert find_noise(named)[0].decision_accuracy == pytest.approx(2 / 3)


def test_the_share_of_variance_between_seeds():
    found = find_noise(recipes_by_sizes(noise=0.01, between_seeds=0.02, seeds=8, seed=3))
    assert np.mean([one.seed_share for one in found]) == pytest.approx(0.8, abs=0.08)
    assert np.mean([one.seed_std for one in found]) == pytest.approx(0.02, rel=0.2)
    # Without any, none is found, by analysis of variance.
    table = recipes_by_sizes(noise=0.01, seeds=8, seed=4)
    last = table[(table["size"] == "60M") & (table.step >= 0.8 * STEPS[-1])]
    number = last.groupby(["model", "run"]).size().iloc[0]
    means = last.groupby(["model", "run"]).score.mean()
    one = find_noise(table)[0]
    variance = max(means.groupby("model").var().mean() - one.noise**2 / number, 0)
    assert one.seed_share == pytest.approx(variance / (variance + one.noise**2), rel=1e-9)
    assert one.seed_share < 0.1
    assert [model.n_runs for model in one.models] == [8, 8, 8]


def test_the_questions_needed_are_those_that_show_the_difference():
    (one,) = (one for one in find_noise(recipes_by_sizes(), difference=0.05) if one.size == "1B")
    enough = one.mde * np.sqrt(one.n_questions / one.questions_needed)
    assert enough <= 0.05 < one.mde * np.sqrt(one.n_questions / (one.questions_needed - 1))


def test_models_are_of_one_size_by_their_parameters_or_their_names():
    table = recipes_by_sizes()
    assert [one.size for one in find_noise(table.drop(columns="size"))] == ["60M", "300M", "1B"]
    named = table.drop(columns=["size", "n_params"])
    assert [(one.size, len(one.models)) for one in find_noise(named)] == [("60M", 3), ("300M", 3), ("1B", 3)]
    (one,) = find_noise(named[named.model.str.startswith("c4")])
    assert (one.size, one.several_sizes, len(one.models)) == ("60M to 1B", True, 3)
    (unnamed,) = find_noise(named[named.model.str.endswith("60M")].assign(model=lambda own: own.model.str[:-4]))
    assert (unnamed.size, len(unnamed.models)) == (None, 3)


def test_what_the_data_do_not_show_is_null_with_a_reason():
    table = recipes_by_sizes()
    end = table[table.step == STEPS[-1]]
    for one in find_noise(end):
        assert one.noise is one.snr is one.worth_running is None
        assert one.signal > 0
        assert one.reasons["noise"] == one.reasons["snr"] == "runs have fewer than 5 checkpoints"
        assert one.verdict == one.reasons["snr"]
    (doubling,) = find_noise(table[table.step.isin([1000, 2000, 4000, 8000, 16000])], model="c4-60M")
    assert "before its half" in doubling.reasons["noise"]
    assert doubling.reasons["signal"] == "there is one model of this size"
    few = find_noise(table.assign(n_samples=9))[0]
    assert few.mde is few.stderr is few.questions_needed is None
    assert "9 questions are fewer than 10" in few.reasons["mde"]
    without = find_noise(table.drop(columns="n_samples"))[0]
    assert without.mde is without.n_questions is None
    assert without.worth_running
    assert "is unknown" in without.verdict
    for found in (find_noise(end), find_noise(table)):
        text = json.dumps([one.to_dict() for one in found], allow_nan=False)
        missing = [(key, row) for row in json.loads(text) for key, value in row.items() if value is None]
        assert all(key in row["reasons"] or key == "variant" for key, row in missing)


def test_verdicts():
    noisy = find_noise(recipes_by_sizes(noise=0.05))[0]
    assert (noisy.worth_running, noisy.is_too_noisy) == (False, True)
    few = find_noise(recipes_by_sizes(noise=0.002).assign(n_samples=200))[0]
    assert (few.worth_running, few.is_too_noisy) == (False, False)
    assert "where these questions show" in few.verdict
    assert find_noise(recipes_by_sizes(noise=0.002))[0].worth_running


def test_a_table_of_losses_and_one_that_diverged(caplog):
    table = (
        recipes_by_sizes()
        .rename(columns={"score": "loss"})[["model", "step", "loss"]]
        .assign(loss=lambda t: 3 - t.loss)
    )
    assert {(one.task, one.metric) for one in find_noise(table)} == {("loss", "loss")}
    bad = recipes_by_sizes()
    bad.loc[(bad.model == "c4-60M") & (bad.step > 25000), "score"] = np.nan
    assert [model.model for model in find_noise(bad)[0].models] == ["dclm-60M", "dolma-60M"]
    assert "the last score is not finite: c4-60M" in caplog.text


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (lambda t: t, {"last": 2}, "a line takes 3 checkpoints"),
        (lambda t: t, {"difference": 0.0}, "give one above 0"),
        (lambda t: t, {"model": "pythia*"}, "no model matches 'pythia\\*': there are c4-1B"),
        (lambda t: t, {"task": "mmlu"}, "no task and metric that match 'mmlu'"),
        (lambda t: t.drop(columns="task"), {}, "no column 'task'"),
        (lambda t: t.assign(metric="tokens"), {}, "in a known direction"),
        (lambda t: t.assign(score=100 * t.score), {}, "not per cent"),
        (lambda t: t.assign(chance=np.inf), {}, "chance level of inf"),
        (lambda t: t.assign(score=1e200, metric="bleu"), {}, "none that a benchmark has"),
        (lambda t: t.assign(score=np.nan), {}, "no series has a finite last score"),
        (lambda t: pd.concat([t, t]), {}, "c4-1B has two scores of arc_easy acc at step 1,000"),
        (lambda t: t.drop(columns="step"), {}, "order of the checkpoints"),
    ],
)
def test_bad_input_is_one_sentence(change, options, sentence):
    with pytest.raises(LmsatError, match=sentence) as caught:
        find_noise(change(recipes_by_sizes()), **options)
    assert "\n" not in str(caught.value)
