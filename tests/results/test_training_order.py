"""The order of checkpoints in training, and totals over stages, for the schemes of published series."""

from __future__ import annotations

import random

import pandas as pd
import pytest

from lmsat_plugin.results.checkpoint_names import parse_series
from lmsat_plugin.results.training_order import Totals, natural, natural_places, totals_of, training_key

B = 10**9
OLMO2 = {
    "step150-tokens1B": (150, B),
    "stage1-step1000-tokens3B": (1000, 3 * B),
    "step2000-tokens5B": (2000, 5 * B),
    "stage1-step900000-tokens3896B": (900_000, 3896 * B),
    "stage2-ingredient1-step1000-tokens5B": (901_000, 3901 * B),
    "stage2-ingredient1-step9000-tokens50B": (909_000, 3946 * B),
    "stage2-ingredient2-step1000-tokens5B": (901_000, 3901 * B),
    "main": (None, None),
}
OLMO3 = {
    "stage1-step1000": (1000, None),
    "stage1-step656000": (656_000, None),
    "stage2-ingredient1-step0": (656_000, None),
    "stage2-ingredient1-step21000": (677_000, None),
    "stage2-ingredient2-step20000": (676_000, None),
    # An average of ingredients that end at different steps has no one past.
    "stage3-step9000": (None, None),
}
SMOLLM3 = {
    "stage1-step-40000": (40_000, None),
    "stage1-step-3440000": (3_440_000, None),
    "stage2-step-3480000": (3_480_000, None),
    "stage3-step-4720000": (4_720_000, None),
    "lc-4k-to-32k-step-4000": (4_724_000, None),
    "lc-4k-to-32k-step-20000": (4_740_000, None),
    "lc-32k-to-64k-step-4000": (4_744_000, None),
}
DATADECIDE = {
    "step0-seed-default": (0, None),
    "step1250-seed-default": (1250, None),
    "step5000-seed-default": (5000, None),
    "step1250-seed-small-aux-2": (1250, None),
    "step5000-seed-small-aux-2": (5000, None),
}
APERTUS = {
    "step50000-tokens210B": (50_000, 210 * B),
    "step2627139-tokens15T": (2_627_139, 15_000 * B),
    "longctx-step50": (2_627_189, None),
    "longctx-step100": (2_627_239, None),
}
LATER_STAGE_ALONE = {"stage2-step10": (None, None), "stage2-step20": (None, None)}
WORDS = {f"chck_{number}M": (None, None) for number in (1, 2, 9, 10, 100)}
INDEX = dict.fromkeys(("ckpt_000", "ckpt_001", "ckpt_009", "ckpt_010"), (None, None))
SHARES = {f"checkpoint_pct{share}": (None, None) for share in ("005", "010", "100")}
SCHEMES = [OLMO2, OLMO3, SMOLLM3, DATADECIDE, APERTUS, LATER_STAGE_ALONE, WORDS, INDEX, SHARES]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: next(iter(scheme)))
def test_order_and_totals(scheme):
    """The schemes are written in the order of training."""
    names = random.Random(0).sample(list(scheme), len(scheme))
    series = parse_series(names)
    names.sort(key=lambda name: (training_key(series[name]), natural(name)))
    assert names == list(scheme)
    assert dict(zip(names, totals_of([series[name] for name in names]), strict=True)) == {
        name: Totals(*totals) for name, totals in scheme.items()
    }


@pytest.mark.parametrize(
    "ordered",
    [
        "pythia-70m pythia-160m pythia-410m pythia-1b pythia-1.4b pythia-2.8b pythia-12b",
        "model-2 model-10",
        "step9 step10 step100",
        "bloom-560m bloom-1b1 bloom-1b7 bloom-3b",
        "v1.9 v1.10",
        "chck_1M chck_10M chck_100M chck_1000M",
        "head_rank=8 head_rank=16",
    ],
)
def test_names_are_in_the_order_of_their_numbers_and_sizes(ordered):
    names = ordered.split()
    names.sort(key=len, reverse=True)
    names.sort(key=natural)
    assert names == ordered.split()


@pytest.mark.parametrize("dtype", [object, "str", "string", "category"])
def test_names_are_sorted_by_their_numbers_whatever_type_pandas_gives_text(dtype):
    names = pd.Series(["m10-11m", "m2-3m", "m1-2m", None], dtype=dtype)
    assert names.sort_values(key=natural_places).tolist()[:3] == ["m1-2m", "m2-3m", "m10-11m"]
