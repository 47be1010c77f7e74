"""Selecting checkpoints of a series: by name, by step, by range, evenly spaced."""

from __future__ import annotations

import itertools
from dataclasses import asdict

import pytest

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.checkpoint_names import parse_series
from lmsat_plugin.series.finding import Checkpoint, in_order
from lmsat_plugin.series.selection import select

PYTHIA = [0, *(2**k for k in range(10)), *range(1000, 144_000, 1000)]


def named(checkpoints: list[Checkpoint]) -> list[str]:
    return [checkpoint.revision for checkpoint in checkpoints]


def org_checkpoint(revision: str, **known: object) -> Checkpoint:
    return Checkpoint(model="org/m", pretrained="org/m", revision=revision, **known)


def series(*steps: int | None, names: str = "step{}") -> list[Checkpoint]:
    return [
        org_checkpoint("main" if step is None else names.format(step), step=step, commit=f"{n:040x}")
        for n, step in enumerate(steps)
    ]


def test_selections():
    found = series(0, 1, 10, 100, 1000, 5000, None)
    steps = named(found)[:-1]
    for selection, meant in {
        "all": steps,
        "first": steps[:1],
        "last": steps[-1:],
        "every:2": ["step0", "step10", "step1000", "step5000"],
        "every:1": steps,
        "every:99": ["step0", "step5000"],
        "1..100": ["step1", "step10", "step100"],
        "..1": ["step0", "step1"],
        "1k..10k": ["step1000", "step5000"],
        "0.1K..0.001M": ["step100", "step1000"],
        "1000..": ["step1000", "step5000"],
        "main": ["main"],
        "step1": ["step1"],
        "step1*": ["step1", "step10", "step100", "step1000"],
        "step[01]": ["step0", "step1"],
        "*": named(found),
        "1000": ["step1000"],
        "5k": ["step5000"],
        found[2].commit: ["step10"],
        "log:2": ["step0", "step5000"],
        "log:99": steps,
    }.items():
        assert named(select(found, selection)) == meant, selection
        assert named(select(found, [selection])) == meant, selection
    assert named(select(found, ["last", 0, "..1", "main", "step0"])) == ["step0", "step1", "step5000", "main"]
    assert named(select(found, [0, 1000])) == ["step0", "step1000"]
    assert named(select(series(None), ["all", "last", "log:3", "every:5"])) == ["main"]
    hashes = [org_checkpoint(f"step{n}", step=n, commit=f"{n}abcdef{n:033x}") for n in range(3)]
    assert named(select(hashes, "1abcdef")) == ["step1"]
    # A name is what it is, even where it could be something else.
    odd = [org_checkpoint(name) for name in ("1..2", "10", "step[0]", "*")]
    for name in named(odd):
        assert named(select(odd, name)) == [name]


def test_tokens_stand_for_steps():
    found = [org_checkpoint(f"tokens{n}B", tokens=n * 10**9) for n in (1, 2, 4, 8, 100)]
    assert named(select([*found, org_checkpoint("main")], "log:3")) == ["tokens1B", "tokens8B", "tokens100B"]


@pytest.mark.parametrize("count", [2, 3, 10, 20, 50, 100, 153, 154, 500])
def test_log_spaced(count):
    found = series(*PYTHIA)
    chosen = [c.step for c in select(found, f"log:{count}")]
    assert len(chosen) == min(count, len(PYTHIA)) == len(set(chosen))
    assert (chosen[0], chosen[-1]) == (0, 143_000)
    assert chosen == sorted(chosen)
    if count == 10:
        assert chosen == [0, 2, 8, 32, 128, 512, 2000, 8000, 34_000, 143_000]
    # Where there are enough, no gap is much wider than its neighbours.
    late = [step for step in chosen if step >= 10_000]
    ratios = [b / a for a, b in itertools.pairwise(late)]
    if count in (20, 50):
        assert max(ratios) < 1.35 * min(ratios)


def test_log_of_equal_steps():
    found = [org_checkpoint(f"step{s}-seed{n}", step=s) for s in (0, 10) for n in range(3)]
    for count in range(2, 7):
        assert len(select(found, f"log:{count}")) == count


OLMO2 = [
    *(f"stage1-step{step}" for step in range(0, 1001, 100)),
    *(f"stage2-ingredient{run}-step{step}" for run in (1, 2) for step in (0, 50, 100)),
    "main",
]
SMOLLM3 = [
    *(f"stage1-step-{step}" for step in (10, 20)),
    *(f"stage2-step-{step}" for step in (30, 40)),
    *(f"lc-4k-to-32k-step-{step}" for step in (10, 20)),
]
DATADECIDE = [f"step{step}-seed-{run}" for run in ("default", "small-aux-2") for step in (0, 100, 200, 300)]
FORMS = ["checkpoint-1", "checkpoint-2", "checkpoint-2-merged", "checkpoint-3-gguf"]


@pytest.mark.parametrize(
    ("names", "selection", "meant"),
    [
        (OLMO2, "last", ["stage1-step1000", "stage2-ingredient1-step100", "stage2-ingredient2-step100"]),
        (OLMO2, "all", OLMO2[:-1]),
        (OLMO2, "stage:1 log:3", ["stage1-step0", "stage1-step100", "stage1-step1000"]),
        (OLMO2, "stage:stage1 last", ["stage1-step1000"]),
        (OLMO2, "stage:stage2 run:ingredient2", OLMO2[-4:-1]),
        (OLMO2, "stage:2 first", ["stage2-ingredient1-step0", "stage2-ingredient2-step0"]),
        (OLMO2, "run:ingredient*", OLMO2[-7:-1]),
        (OLMO2, "stage1-step*00 every:6", ["stage1-step100", "stage1-step700", "stage1-step1000"]),
        (OLMO2, "..100 stage:1", ["stage1-step0", "stage1-step100"]),
        (SMOLLM3, "last", ["stage2-step-40", "lc-4k-to-32k-step-20"]),
        (SMOLLM3, "stage:lc*", SMOLLM3[-2:]),
        (DATADECIDE, "log:2", [f"step{step}-seed-{run}" for run in ("default", "small-aux-2") for step in (0, 300)]),
        (DATADECIDE, "run:default last", ["step300-seed-default"]),
        (FORMS, "all", ["checkpoint-1", "checkpoint-2", "checkpoint-3-gguf"]),
        (FORMS, "checkpoint-2-merged", ["checkpoint-2-merged"]),
        ([f"chck_{n}M" for n in (1, 2, 9, 10)], "last", ["chck_10M"]),
        ([f"ckpt_{n:03}" for n in range(9)], "log:3", ["ckpt_000", "ckpt_002", "ckpt_008"]),
        (["kestrel 3", "kestrel 4"], "kestrel 4", ["kestrel 4"]),
    ],
)
def test_stages_and_runs(names, selection, meant):
    parsed = parse_series(names)
    found = in_order([org_checkpoint(name, **asdict(parsed[name])) for name in names])
    assert named(select(found, selection)) == meant


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        ("stage:3", "no such stage; it has stage1, stage2"),
        ("run:seed1 log:5", "no such run; it has ingredient1, ingredient2"),
        ("stage:1 stpe100", r"revisions=stage:1 stpe100 \(stpe100\)"),
        ("stage:2 log:1", "2 or more"),
    ],
)
def test_wrong_stages_and_runs_are_one_sentence(selection, says):
    parsed = parse_series(OLMO2)
    with pytest.raises(LmsatError, match=says):
        select(in_order([org_checkpoint(name, **asdict(parsed[name])) for name in OLMO2]), selection)


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        ("log:0", "2 or more"),
        ("log:1", "2 or more"),
        ("log:", "2 or more"),
        ("every:x", "1 or more"),
        ("every:-1", "1 or more"),
        ("10..5", "FROM..TO"),
        ("..", "FROM..TO"),
        ("20..90", "from 0 to 5000"),
        ("stpe1000", "did you mean step1000"),
        ("300", "did you mean step100 or step1000"),
        (-5, "it has step0"),
        ("nothing*", "it has step0, step1, step10, step100, step1000 and 2 more"),
        ("fffffffffff", "no such checkpoint"),
    ],
)
def test_wrong_selections_are_one_sentence(selection, says):
    with pytest.raises(LmsatError, match=says) as error:
        select(series(0, 1, 10, 100, 1000, 5000, None), ["all", selection])
    assert str(selection) in str(error.value)
    assert "\n" not in str(error.value)


def test_log_needs_steps():
    unknown = [org_checkpoint(name) for name in "abc"]
    with pytest.raises(LmsatError, match="step_pattern"):
        select(unknown, "log:2")
    with pytest.raises(LmsatError, match="none is known"):
        select(unknown, "1..2")
