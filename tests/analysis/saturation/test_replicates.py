"""Saturation of published series: of each run through its stages, on the axis its names state, and of replicates."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import series_trees as trees

from lmsat_plugin.analysis import find_saturation
from lmsat_plugin.analysis.saturation.replicates import groups_of, sentences_on_runs
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import Results


def verdicts(root, **options) -> dict:
    return {result.label: result for result in find_saturation(Results.read(root), repetitions=200, **options)}


def of_losses(losses: dict[int, float]):
    """Return the verdict on losses by place, from a table without names."""
    rows = [{"model": "m", "step": place, "loss": loss, "stderr": trees.STDERR} for place, loss in losses.items()]
    (result,) = find_saturation(pd.DataFrame(rows), repetitions=200)
    return result


def test_stage_1_is_judged_alone(tmp_path):
    losses = trees.write_olmo2(tmp_path, "OLMo-2")
    found = verdicts(tmp_path)
    alone = of_losses({int(name[11:].partition("-")[0]): loss for name, loss in losses.items() if "stage1" in name})
    own = found["OLMo-2"]
    assert (own.verdict, own.reason, own.p_value) == (alone.verdict, alone.reason, alone.p_value)
    assert (own.best_step, own.final_step, own.final_tokens) == (alone.best_step, 20000, 80 * trees.B)
    assert list(found) == ["OLMo-2", *(f"OLMo-2 (stage2, ingredient{number})" for number in (1, 2, 3))]
    last = found["OLMo-2 (stage2, ingredient3)"]
    assert (last.stage, last.run, last.final_step, last.final_tokens) == ("stage2", "ingredient3", 3000, 95 * trees.B)
    assert last.final == losses["stage2-ingredient3-step3000-tokens15B"]
    assert last.to_dict()["final_revision"] == "stage2-ingredient3-step3000-tokens15B"


def test_stages_that_count_on_are_named(tmp_path):
    losses = {}
    for index in range(1, 25):
        losses[index * 1000] = trees.falling(index / 24)
        trees.write_checkpoint(tmp_path, "m", f"stage{1 + index // 10}-step-{index * 1000}", losses[index * 1000])
    (own,) = verdicts(tmp_path).values()
    alone = of_losses(losses)
    assert own.reason == f"{alone.reason}; these are its stages stage1, stage2, stage3, one after another"
    assert own.series.at_K.tolist() == list(losses)


@pytest.mark.parametrize(
    ("write", "axis", "best", "words"),
    [
        (trees.write_babylm, "words", 10**8, "from 80M words"),
        (trees.write_baichuan, "tokens", 2420 * trees.B, "from 1.98T tokens"),
        (trees.write_amber, "order", 15, "its last 3 checkpoints (from ckpt_260)"),
    ],
)
def test_the_axis_of_names_without_steps(tmp_path, write, axis, best, words):
    losses = write(tmp_path, "m")
    (own,) = verdicts(tmp_path).values()
    assert (own.axis, own.best_at, own.final_at, own.best_step, own.final_step) == (axis, best, best, None, None)
    assert own.final == list(losses.values())[-1]
    assert own.best_tokens == (best if axis == "tokens" else None)
    assert words in own.reason
    assert ("by the order of their names" in own.reason) == (axis == "order")
    plain = of_losses(dict(zip(own.series.at_K.tolist(), losses.values(), strict=True)))
    assert (own.verdict, own.p_value) == (plain.verdict, plain.p_value)
    values = own.to_dict()
    assert {values[key] for key in ("best_step", "final_step", "onset_step", "min_step")} == {None}


def test_a_rise_by_tokens_has_its_onset_in_tokens(tmp_path):
    for index in range(1, 31):
        loss = 3 - min(index, 20) / 20 + 0.05 * max(index - 20, 0) + 0.001 * (-1) ** index
        trees.write_checkpoint(tmp_path, "m", f"train_{100 * index:05}B", loss)
    (own,) = verdicts(tmp_path).values()
    assert own.verdict == "saturates"
    assert (own.onset_step, own.onset_tokens) == (None, own.onset_at)
    assert 20e11 <= own.onset_low <= own.onset_at <= own.onset_high <= 23e11
    assert re.search(r"left that level between [\d.]+T? and [\d.]+T tokens", own.reason)


def test_names_that_say_nothing(tmp_path):
    for name in ("kestrel", "phoenix"):
        trees.write_checkpoint(tmp_path, "marin", name, 3.0)
    with pytest.raises(
        LmsatError, match=r"marin, with checkpoints such as kestrel, phoenix.*revisions: \[.*--step-pat"
    ):
        verdicts(tmp_path)
    for index in range(1, 4):
        trees.write_checkpoint(tmp_path, "m", f"step{index}", 3.0)
    assert list(verdicts(tmp_path)) == ["m"]


def test_runs_are_counted(tmp_path):
    losses = trees.write_polypythias(tmp_path, {1: True, 2: False, 3: False, 4: True, 7: True})
    results = find_saturation(Results.read(tmp_path), repetitions=200)
    alone = {
        seed: of_losses({step: loss for (own, step), loss in losses.items() if own == seed}) for seed in (1, 2, 3, 4, 7)
    }
    assert [result.verdict for result in results] == [result.verdict for result in alone.values()]
    assert [result.run for result in results] == [f"seed{seed}" for seed in alone]
    assert sentences_on_runs(results) == ["pythia-410m: saturates in 3 of 5 runs (seed1, seed4, seed7)"]
    assert list(groups_of(results)) == ["pythia-410m"]


def test_runs_of_which_none_saturates(tmp_path):
    trees.write_datadecide(tmp_path, "DD")
    results = find_saturation(Results.read(tmp_path), repetitions=200)
    assert sentences_on_runs(results) == ["DD: saturates in 0 of 3 runs (3 improving)"]
    assert sentences_on_runs(results[:1]) == []
