"""Events of every metric: where they are, what is tested and corrected for, and their order beside the onset."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from training_runs import STEPS, falling, results_of, table_of

from lmsat_plugin import figures
from lmsat_plugin.analysis import find_events, find_saturation
from lmsat_plugin.errors import LmsatError

ANISOTROPY = "lmsat_anisotropy", "anisotropy_last"
ENTROPY = "lmsat_head", "singular_entropy"


def run_of(model: str, *, jump: int | None = None, onset: int | None = 20, seed: int = 0) -> pd.DataFrame:
    """Return a run whose loss rises at one checkpoint and whose anisotropy jumps at another, or neither."""
    rng = np.random.default_rng(seed)
    losses = falling(rng)
    if onset is not None:
        losses[onset:] += 0.15
    anisotropy = 0.2 + 0.005 * rng.standard_normal(28)
    if jump is not None:
        anisotropy[jump:] += 0.4
    metrics = {
        ("lmsat_loss", "loss"): losses,
        ("lmsat_loss", "perplexity"): np.exp(losses),
        ANISOTROPY: anisotropy,
        ENTROPY: 1 + 0.01 * rng.standard_normal(28),
        ("lmsat_loss", "tokens"): np.full(28, 50_000.0),
    }
    parts = [results_of(values, task=task, metric=metric, model=model) for (task, metric), values in metrics.items()]
    table = pd.concat(parts, ignore_index=True)
    return table.assign(higher_is_better=table.metric.map({"loss": False, "perplexity": False}))


def test_a_jump_before_the_onset():
    found = find_events(run_of("m", jump=10))
    (run,) = found.runs
    (event,) = run.events
    assert event.key == (*ANISOTROPY, "jumps up")
    assert (event.low, event.at) == (STEPS[9], STEPS[10])
    assert event.low < event.at <= event.high
    assert run.onset_at == STEPS[20]
    assert run.beside_onset(event) == "before"
    # Perplexity is the loss in other units, and tokens never change: two metrics are left.
    assert (run.metrics, run.tests) == (2, 6)
    assert event.corrected_p_value == pytest.approx(6 * event.p_value)
    frame = found.to_frame()
    assert frame[["run", "metric", "kind", "at", "beside_onset"]].values.tolist() == [
        ["m", "anisotropy_last", "jumps up", STEPS[10], "before"]
    ]


def test_the_order_over_runs():
    runs = {"before": 8, "same": 20, "after": 23, "neither": None}
    parts = [run_of(name, jump=jump, seed=seed) for seed, (name, jump) in enumerate(runs.items())]
    parts += [run_of("healthy", jump=12, onset=None, seed=8), run_of("plain", onset=None, seed=9)]
    table = pd.concat(parts, ignore_index=True)
    found = find_events(table)
    own = {
        run.name: [run.beside_onset(event) for event in run.events if event.metric == ANISOTROPY[1]]
        for run in found.runs
    }
    assert own == {
        **{"before": ["before"], "same": ["same time"], "after": ["after"], "neither": []},
        **{"healthy": [None], "plain": []},
    }
    (order,) = [one for one in found.order if one.key == (*ANISOTROPY, "jumps up")]
    assert order.counts() == {
        **{"before": 1, "same_time": 1, "after": 1, "with_onset": 3, "onsets": 4},
        **{"without_onset": 1, "judged_without_onset": 2},
    }
    assert found.order.to_frame().metric.tolist()[0] == ANISOTROPY[1]


def test_what_verdicts_leave_out_has_no_say():
    table = run_of("m", jump=10)
    late = find_events(table, find_saturation(table, min_step=int(STEPS[12])))
    assert [event.metric for event in late.runs[0].events] == []
    few = table[(table.metric != ANISOTROPY[1]) | (table.step > STEPS[20])]
    assert find_events(few).runs[0].metrics == 1, "seven checkpoints are too few"


def test_losses_alone_and_verdicts_by_several_scores_have_no_events():
    losses = table_of(falling(np.random.default_rng(0)))
    assert find_events(losses).runs == ()
    numbered = run_of("m").assign(model=160)
    assert [run.name for run in find_events(numbered).runs] == ["160"]
    scores = pd.concat([results_of(np.linspace(0.3, 0.6, 28), task=task) for task in ("piqa", "arc_easy")])
    assert find_events(scores).runs == ()


def test_quantities_of_very_different_sizes_are_compared_by_ratio():
    """A fall by a factor of a million, and a rise to a ten-thousandth of where it began, with noise of 5 %."""
    noise = 0.05 * np.random.default_rng(0).standard_normal(28)
    logarithm = np.concatenate([np.linspace(14, 0, 14), np.linspace(0, 5, 14)]) + noise
    made = results_of(np.exp(logarithm), task="lmsat_head", metric="condition_number", higher=None)
    (run,) = find_events(pd.concat([run_of("m", onset=None), made], ignore_index=True)).runs
    (event,) = run.events
    assert event.key == ("lmsat_head", "condition_number", "turns up")
    assert event.low <= STEPS[13] <= event.high


def test_the_figure_has_a_row_a_metric_and_every_interval():
    found = find_events(pd.concat([run_of("a", jump=10), run_of("b", jump=12, onset=None, seed=1)], ignore_index=True))
    figure = figures.plot(found)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]
    for axes, run in zip(figure.axes, found.runs, strict=True):
        (event,) = run.events
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["anisotropy_last"]
        drawn = [list(map(int, line.get_xdata())) for line in axes.get_lines()]
        assert [event.low, event.high] in drawn
        assert [event.at] in drawn
        assert ([run.onset_at] * 2 in drawn) == (run.onset_at is not None)
    assert len(figures.plot(list(found.runs)).axes) == 2
    with pytest.raises(LmsatError, match="no event to draw"):
        figures.plot(find_events(run_of("m", onset=None)))
