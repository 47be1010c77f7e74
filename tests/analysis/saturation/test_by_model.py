"""Verdicts of saturation: on published numbers, and on simulated runs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from places import PUBLISHED, PYTHIA_EVALS, PYTHIA_LOSSES
from result_trees import save_arrays, write_result
from training_runs import RUNS, STEPS, falling, healthy, noise_of, results_of, table_of

from lmsat_plugin.analysis import find_saturation
from lmsat_plugin.analysis.input_tables import read_csv
from lmsat_plugin.analysis.saturation.rise import Stretches
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import Results, load_results

published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published numbers are not here")


@pytest.fixture(scope="module")
def pythia_evals() -> pd.DataFrame:
    return load_results(PYTHIA_EVALS)


@published
def test_published_losses_of_pythia():
    found = {one.model: one for one in find_saturation(pd.read_csv(PYTHIA_LOSSES))}
    verdicts = {model: one.verdict for model, one in found.items()}
    assert {verdicts[f"pythia-{size}"] for size in ("31m", "70m", "160m")} == {"saturates"}
    assert verdicts["pythia-410m"] == "improving"
    assert verdicts["pythia-14m"] == "plateaus"
    assert (
        "between steps 65,000 and 105,000 it was up to 0.108 nats (2.5 %) worse, and came back"
        in found["pythia-14m"].reason
    )
    assert {verdicts[f"pythia-{size}"] for size in ("1b", "1.4b", "2.8b", "6.9b", "12b")} == {"unclear"}
    for model, rise in (("31m", 70_000), ("31m", 75_000), ("70m", 65_000), ("160m", 90_000)):
        one = found[f"pythia-{model}"]
        assert one.onset_low <= rise <= one.onset_high
        assert one.onset_high - one.onset_low <= 40_000
    assert found["pythia-160m"].best_step == 75_000
    assert found["pythia-160m"].best_tokens == 75_000 * 2_097_152
    assert found["pythia-160m"].onset_tokens == found["pythia-160m"].onset_step * 2_097_152
    assert found["pythia-160m"].late_minus_middle.size > 0 > found["pythia-410m"].late_minus_middle.size


@published
@pytest.mark.parametrize("metric", ["ppl", "acc"])
def test_published_scores_of_pythia(pythia_evals, metric):
    found = find_saturation(pythia_evals, "lambada_openai", metric)
    verdicts = {one.model.rpartition("-")[2]: one for one in found}
    assert verdicts["70m"].verdict == verdicts["160m"].verdict == "saturates"
    assert verdicts["410m"].verdict == "improving"
    assert verdicts["160m"].best_step == 63_000
    assert verdicts["160m"].sampling == "standard errors"
    assert verdicts["160m"].min_step == 3000


@published
@pytest.mark.parametrize("task", ["wsc", "logiqa", "arc_challenge"])
def test_published_scores_at_chance_say_nothing(pythia_evals, task):
    found = find_saturation(pythia_evals, task, "acc")
    assert {one.verdict for one in found} == {"unclear"}
    assert all("checkpoints are clearly better than chance" in one.reason for one in found)


def test_healthy_runs_are_seldom_called_saturating():
    rng = np.random.default_rng(0)
    table = pd.concat(table_of(healthy(rng), model=index) for index in range(RUNS))
    found = find_saturation(table, repetitions=500)
    rate = np.mean([one.verdict == "saturates" for one in found])
    print(f"healthy runs called saturating: {rate:.3f} of {RUNS}")
    assert rate <= 0.05 + 2 * (0.05 * 0.95 / RUNS) ** 0.5


@pytest.mark.parametrize(("known", "least"), [(False, 0.9), (True, 0.85)])
def test_risen_runs_are_found(known, least):
    """Where standard errors are known, another sample has to show the rise, too."""
    rng = np.random.default_rng(1)
    runs = []
    for index in range(RUNS):
        values = healthy(rng)
        late = rng.integers(5, 11)
        stretches = Stretches.of(28 - late, 5)
        best = np.append(*stretches.means(values[None, :-late])).min()
        values[-late:] = best + 0.01 * (3 + noise_of(rng, late))
        runs.append(table_of(values, model=index, **({"stderr": 0.01} if known else {})))
    found = find_saturation(pd.concat(runs), repetitions=500)
    rate = np.mean([one.verdict == "saturates" for one in found])
    print(f"risen runs found, standard errors {'known' if known else 'unknown'}: {rate:.3f} of {RUNS}")
    assert rate >= least - 2 * (least * (1 - least) / RUNS) ** 0.5


def test_bumps_and_single_checkpoints_do_not_saturate():
    rng = np.random.default_rng(2)
    plain = np.maximum(falling(rng), 3.2 + 0.01 * rng.standard_normal(28))
    bump, spike, last = plain.copy(), plain.copy(), plain.copy()
    bump[12:18] += 0.15
    spike[20] += 0.5
    last[-1] += 0.5
    table = pd.concat(
        table_of(values, model=name)
        for name, values in (("plain", plain), ("bump", bump), ("spike", spike), ("last", last))
    )
    found = {one.model: one for one in find_saturation(table)}
    assert all(one.verdict in ("improving", "plateaus") for one in found.values())
    assert "came back" in found["bump"].reason
    assert found["spike"].set_aside == [int(STEPS[20])]
    assert found["last"].set_aside == [int(STEPS[-1])]
    assert found["last"].final == last[-1]


@published
@pytest.mark.parametrize("name", ["falling_but_called_plateau", "unevenly_spaced_end"])
def test_reported_tables(name):
    """A curve whose every value is below the one before improves, and a dense end changes no verdict."""
    found = find_saturation(pd.read_csv(PUBLISHED / "reported" / f"{name}.csv"))
    assert {one.verdict for one in found} == {"improving"}


def test_halving_the_checkpoints_and_adding_some_at_the_end():
    rng = np.random.default_rng(21)
    steps = np.append(STEPS, STEPS[-1] + np.arange(1, 11) * 300)
    for rise, verdict in ((0.1, "saturates"), (-0.1, "improving")):
        values = 3 + 0.3 * (steps / 5000) ** -0.5 + 0.01 * rng.standard_normal(len(steps))
        values += rise * np.clip((steps - 70_000) / 60_000, 0, 1)
        shown = [(values, steps), (values[:28], STEPS), (values[1:28:2], STEPS[1::2])]
        assert [find_saturation(table_of(*one))[0].verdict for one in shown] == [verdict] * 3


def test_constants_and_limits_get_a_sentence():
    for values in (np.full(28, 3.0), np.full(28, 1e-310)):
        (one,) = find_saturation(results_of(values))
        assert (one.verdict, one.p_value, one.tolerance, one.power) == ("unclear", None, None, None)
        assert "all 28 values are" in one.reason
    for values in (np.arange(1, 29) * 5e306, np.arange(1, 29) * 1e-315):
        (one,) = find_saturation(results_of(values))
        assert (one.verdict, one.p_value) == ("unclear", None)
        assert "no measurements that can be told apart" in one.reason
    (one,) = find_saturation(results_of([0.5], [1000]))
    assert one.reason.startswith("1 checkpoint ")
    with pytest.raises(LmsatError, match="tolerance=-1 is out of range: give a difference of the metric, above 0"):
        find_saturation(table_of(np.full(28, 3.0)), tolerance=-1)


def test_a_run_too_short_to_tell_its_correlation_is_unclear():
    """The verdict says what would decide, and p for both correlations."""
    seen = set()
    for seed in range(40):
        values = 3 + 0.01 * np.random.default_rng(seed).standard_normal(15)
        values[-4:] += 0.03
        (one,) = find_saturation(table_of(values, STEPS[:15]))
        if "cannot tell which" in one.reason:
            assert one.verdict == "unclear"
            assert "measure 28 or more, evenly over training" in one.reason
        seen.add("cannot tell which" in one.reason)
    assert seen == {True, False}


def test_a_rise_is_found_with_its_onset():
    rng = np.random.default_rng(3)
    for place in (10, 14, 20):
        values = falling(rng)
        values[place:] += 0.2
        (one,) = find_saturation(table_of(values))
        assert one.verdict == "saturates"
        assert one.onset_low <= STEPS[place] <= one.onset_high
        assert one.onset_step in STEPS[place - 1 : place + 2]


def test_the_verdict_needs_checkpoints_and_text():
    rng = np.random.default_rng(5)
    (few,) = find_saturation(table_of(falling(rng, 7), STEPS[:7]))
    assert (few.verdict, few.p_value, few.onset_step) == ("unclear", None, None)
    assert few.reason.startswith("7 checkpoints")
    noisy = 3 + 0.3 * rng.standard_normal(28)
    (one,) = find_saturation(table_of(noisy), tolerance=0.1)
    assert one.verdict == "unclear"
    # By default the tolerance is a multiple of the noise, and the reason states it.
    (one,) = find_saturation(table_of(noisy))
    assert (one.verdict, one.tolerance) == ("plateaus", pytest.approx(2 * one.noise))
    assert f"tolerance, {one.tolerance:.3g} nats" in one.reason
    (flat,) = find_saturation(table_of(np.append([5.0, 4.0], np.full(26, 3.0))))
    assert flat.verdict == "plateaus"


def test_standard_errors_have_a_say():
    """A rise that the checkpoints show clearly, and questions that are too few to be sure of it."""
    rng = np.random.default_rng(6)
    values = 0.8 - 0.2 * (falling(rng, scale=0.003) - 3)
    values[18:] -= 0.03
    sure, unsure = (find_saturation(results_of(values, stderr=error))[0] for error in (0.003, 0.06))
    assert (sure.verdict, unsure.verdict) == ("saturates", "unclear")
    assert sure.drop_p_value < 0.05 < unsure.drop_p_value


def test_documents_pair(tmp_path):
    """Documents differ far more than checkpoints do: paired, a small rise is sure; unpaired it is not."""
    rng = np.random.default_rng(7)
    tokens = rng.integers(200, 2000, 40).astype(float)
    means = rng.normal(3, 0.5, 40)
    rise = np.concatenate([np.linspace(0.5, 0, 12), np.zeros(6), np.full(10, 0.02)])
    nats = (means + rise[:, None] + rng.normal(0, 0.01, (28, 40))) * tokens

    def save(index: int, tokens: np.ndarray) -> None:
        arrays = {"loss/by_document": nats[index], "loss/by_document_tokens": tokens}
        save_arrays(files[index], arrays)

    losses = nats.sum(1) / tokens.sum()
    files = [
        write_result(tmp_path, "m", int(step), {"lmsat_loss": {"loss": (loss, 0.08)}})
        for step, loss in zip(STEPS, losses, strict=True)
    ]
    for index in range(28):
        save(index, tokens)
    results = Results.read(tmp_path)
    (paired,) = find_saturation(results)
    (unpaired,) = find_saturation(results.table)
    assert (paired.verdict, paired.sampling) == ("saturates", "documents")
    assert (unpaired.verdict, unpaired.sampling) == ("unclear", "standard errors")
    save(3, tokens + 1)
    assert find_saturation(results)[0].sampling == "standard errors"


def test_each_corpus_has_its_own_geometry(tmp_path):
    """The geometry that was measured on the other corpus is not shown, that of the weights alone with both."""
    rng = np.random.default_rng(18)
    jumps = {"a": 8, "b": 16}
    for corpus, jump in jumps.items():
        for index, (step, loss) in enumerate(zip(STEPS, falling(rng), strict=True)):
            geometry = {"anisotropy_last": 0.2 + 0.6 * (index >= jump)}
            values = {"lmsat_loss": {"loss": loss}, "lmsat_anisotropy": geometry}
            if corpus == "a":
                values["lmsat_head"] = {"singular_entropy": 0.5 + abs(index - 12) / 100}
            write_result(tmp_path, "m", int(step), values, corpus=corpus)
    found = {one.corpus: one.geometry for one in find_saturation(Results.read(tmp_path))}
    for corpus, jump in jumps.items():
        assert found[corpus].anisotropy_jump_step == STEPS[jump]
        assert found[corpus].entropy_turn_step == STEPS[12]


def test_the_same_again_whatever_the_order():
    rng = np.random.default_rng(14)
    table = table_of(falling(rng))
    shuffled = table.sample(frac=1, random_state=0)
    assert find_saturation(table) == find_saturation(shuffled)


def test_rows_without_numbers_are_left_out(caplog):
    values = falling(np.random.default_rng(17))
    values[4] = np.nan
    (one,) = find_saturation(table_of(values))
    assert one.n_checkpoints == 27
    assert "1 of 28 rows are left out, the first of them row 5" in caplog.text


@pytest.mark.parametrize("end", [np.nan, np.inf])
def test_a_run_that_ends_without_finite_losses_has_diverged(end, caplog):
    """What came before is not judged."""
    values = falling(np.random.default_rng(3))
    values[-3:] = end
    other_run = table_of(falling(np.random.default_rng(17))).assign(model="healthy")
    one, other = find_saturation(pd.concat([table_of(values), other_run]))
    assert (one.verdict, one.diverged_step, one.p_value, one.onset_step) == ("diverged", STEPS[-3], None, None)
    assert one.reason.startswith(f"its loss is not finite from step {STEPS[-3]:,} on; before, it was at best")
    assert (one.final_step, one.n_checkpoints) == (STEPS[-4], len(STEPS) - 3 - (STEPS[-4] / 100 > STEPS).sum())
    assert other.diverged_step is None
    assert not caplog.records
    json.dumps(one.to_dict(), allow_nan=False)


def test_a_run_without_any_finite_loss(caplog):
    nothing = table_of(np.full(len(STEPS), np.nan))
    with pytest.raises(LmsatError, match=rf"diverged at step {STEPS[0]:,}, and there is no finite loss before"):
        find_saturation(nothing)
    other_run = table_of(falling(np.random.default_rng(17))).assign(model="healthy")
    assert [one.model for one in find_saturation(pd.concat([nothing, other_run]))] == ["healthy"]
    assert "and is left out: there is no finite loss before" in caplog.text


@pytest.mark.parametrize(("last", "verdict"), [("nan", "diverged"), ("inf", "diverged"), ("", "improving")])
def test_a_csv_that_says_nan_and_one_that_says_nothing(tmp_path, last, verdict):
    table = table_of(falling(np.random.default_rng(17)))[["model", "step", "loss"]]
    lines = [f"{row.model},{row.step},{row.loss}" for row in table.itertuples()]
    file = tmp_path / "losses.csv"
    file.write_text("\n".join(["model, step, loss ", *lines, f"{table.model[0]},{2 * STEPS[-1]},{last}"]))
    (one,) = find_saturation(read_csv(file))
    assert one.verdict == verdict
    assert one.diverged_step == (2 * STEPS[-1] if last else None)
