"""Numbers that are none, or out of range, in the public analyses: one sentence each, and no traceback."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lmsat_plugin import analysis
from lmsat_plugin.analysis.given_numbers import check_number, check_share, check_simulation, check_whole
from lmsat_plugin.analysis.rank_needed.dimension import capacity
from lmsat_plugin.analysis.scaling_laws import kaplan
from lmsat_plugin.analysis.scaling_laws.context_gain import context_gain
from lmsat_plugin.errors import LmsatError

NO_NUMBERS = ("nan", math.nan, None, True, [1], -1, 1.5, math.inf, 10**400)
TABLE = pd.DataFrame({"model": "m", "step": np.arange(1, 21), "loss": 3 - 0.01 * np.arange(20)})
SIMULATING = {
    "fit": lambda **given: analysis.fit("chinchilla", TABLE, **given),
    "fit_curves": lambda **given: analysis.fit_curves(TABLE, **given),
    "fit_isoflops": lambda **given: analysis.fit_isoflops(TABLE, **given),
    "find_saturation": lambda **given: analysis.find_saturation(TABLE, **given),
    "predict_scores": lambda **given: analysis.predict_scores(TABLE, ["a"], ["b"], **given),
    "shape_dependence": lambda **given: analysis.shape_dependence(TABLE, **given),
    "context_gain": lambda **given: context_gain({}, **given),
}
SHARES = {
    "within": lambda value: analysis.shape_dependence(TABLE, within=value),
    "confidence": lambda value: analysis.shape_dependence(TABLE, confidence=value),
    "share": lambda value: context_gain({}, share=value),
    "fewest_saved": lambda value: analysis.sample_efficiency(TABLE, [3.0], fewest_saved=value),
    "negligible": lambda value: capacity(np.ones(3), 2, negligible=value),
}


@pytest.mark.parametrize("analyse", SIMULATING.values(), ids=SIMULATING)
@pytest.mark.parametrize("name", ["repetitions", "seed"])
def test_repetitions_and_seeds(analyse, name):
    for value in NO_NUMBERS:
        with pytest.raises(LmsatError, match=rf"^{name}=.* is out of range: give ") as caught:
            analyse(**{name: value})
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 250


@pytest.mark.parametrize(("name", "analyse"), SHARES.items(), ids=SHARES)
def test_shares(name, analyse):
    for value in ("nan", math.nan, None, -0.1, 0, 1, 90, math.inf):
        with pytest.raises(LmsatError, match=rf"^{name}=.* is out of range: give a number between 0 and 1$"):
            analyse(value)


@pytest.mark.parametrize(
    ("analyse", "said"),
    [
        (lambda: analysis.fit_curves(TABLE, at="nan"), "at=nan"),
        (lambda: analysis.fit_curves(TABLE, at=0), "at=0"),
        (lambda: analysis.find_saturation(TABLE, tolerance=math.nan), "tolerance=nan"),
        (lambda: analysis.find_saturation(TABLE, tolerance="0.1"), "tolerance=0.1"),
        (lambda: analysis.find_saturation(TABLE, min_step=-1), "min_step=-1"),
        (lambda: analysis.find_saturation(TABLE, repetitions=20), "repetitions=20"),
        (lambda: analysis.find_emergence(TABLE, seed=-1), "seed=-1"),
        (lambda: analysis.sample_efficiency(TABLE, ["2"]), "loss=2"),
        (lambda: analysis.sample_efficiency(TABLE, [10**400]), "loss=1000"),
        (lambda: analysis.allocate(flops="1e20"), "flops=1e20"),
        (lambda: analysis.allocate(n_params=math.nan), "n_params=nan"),
        (lambda: capacity(np.ones(3), 0), "hidden_size=0"),
        (lambda: kaplan.critical_batch("2"), "loss=2 is no number"),
        (lambda: analysis.find_rank_needed(None, within="x"), "within=x"),
    ],
)
def test_other_numbers(analyse, said):
    with pytest.raises(LmsatError, match=f"^{said}"):
        analyse()


def test_numbers_of_numpy_are_numbers():
    check_number("x", np.float32(0.5), "", least=0, most=1)
    check_share("x", np.float64(0.5))
    check_whole("x", np.int64(5), "", least=5, most=5)
    check_simulation(np.int32(0), 0, usual=100)
    with pytest.raises(LmsatError, match="x=0 is out of range: here"):
        check_number("x", 0, "here", least=0)
    check_number("x", 0, "here", least=0, ends=True)
