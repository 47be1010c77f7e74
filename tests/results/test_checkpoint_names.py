"""Names of checkpoints: those of published series, what is no checkpoint, and numbers within 64 bits."""

from __future__ import annotations

import re

import pytest

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.checkpoint_names import (
    TrainingProgress,
    compile_pattern,
    is_another_form,
    parameters_in_name,
    parse_progress,
    parse_series,
)

DIGITS = "9" * 5000
B, T = 10**9, 10**12

# Each row: a name, and what it states. Sources: the branch lists and model cards of the series.
PUBLISHED = {
    # EleutherAI/pythia and PolyPythias
    "step0": {"step": 0},
    "step512": {"step": 512},
    "step143000": {"step": 143_000},
    "pythia-410m-seed3": {"run": "seed3"},
    "pythia-160m-data-seed1": {"run": "data-seed1"},
    "pythia-160m-weight-seed1": {"run": "weight-seed1"},
    # allenai/OLMo, OLMo-2, Olmo-3
    "step1000-tokens2B": {"step": 1000, "tokens": 2 * B},
    "step1454000-tokens3048B": {"step": 1_454_000, "tokens": 3048 * B},
    "step150-tokens1B": {"step": 150, "tokens": B},
    "stage1-step150-tokens1B": {"stage": "stage1", "step": 150, "tokens": B},
    "stage1-step928646-tokens3896B": {"stage": "stage1", "step": 928_646, "tokens": 3896 * B},
    "stage2-ingredient1-step1000-tokens5B": {"stage": "stage2", "run": "ingredient1", "step": 1000, "tokens": 5 * B},
    "stage2-ingredient3-step11931-tokens50B": {
        **{"stage": "stage2", "run": "ingredient3"},
        **{"step": 11_931, "tokens": 50 * B},
    },
    "stage2-ingredient1-step0": {"stage": "stage2", "run": "ingredient1", "step": 0},
    "stage3-step9000": {"stage": "stage3", "step": 9000},
    # allenai/DataDecide
    "step1250-seed-default": {"step": 1250, "run": "default"},
    "step5000-seed-small-aux-2": {"step": 5000, "run": "small-aux-2"},
    "step5000-seed-small-aux-3": {"step": 5000, "run": "small-aux-3"},
    "step5000-seed-large-aux-2": {"step": 5000, "run": "large-aux-2"},
    # HuggingFaceTB/SmolLM2 and SmolLM3
    "step-125000": {"step": 125_000},
    "stage1-step-40000": {"stage": "stage1", "step": 40_000},
    "stage3-step-4720000": {"stage": "stage3", "step": 4_720_000},
    "lc-4k-to-32k-step-4000": {"stage": "lc-4k-to-32k", "step": 4000},
    "lc-32k-to-64k-step-20000": {"stage": "lc-32k-to-64k", "step": 20_000},
    # swiss-ai/Apertus, OpenLLM-France/Lucie
    "step2627139-tokens15T": {"step": 2_627_139, "tokens": 15 * T},
    "longctx-step50": {"stage": "longctx", "step": 50},
    "step0005000": {"step": 5000},
    "extension_step0000250": {"stage": "extension", "step": 250},
    # LLM360 Amber (an index) and Crystal
    "ckpt_000": {},
    "ckpt_012": {},
    "CrystalCoder_phase1_checkpoint_055500": {"stage": "phase1", "step": 55_500},
    # bigscience/bloom, m-a-p/neo, Megatron-LM, litgpt, torchtitan
    "global_step1000": {"step": 1000},
    "iter_0002384": {"step": 2384},
    "step-00001000": {"step": 1000},
    # TinyLlama, Baichuan 2, RedPajama, FineWeb's ablations
    "TinyLlama-1.1B-intermediate-step-1431k-3T": {"step": 1_431_000, "tokens": 3 * T},
    "TinyLlama-1.1B-intermediate-step-955k-token-2T": {"step": 955_000, "tokens": 2 * T},
    "train_00220B": {"tokens": 220 * B},
    "240b_tokens": {"tokens": 240 * B},
    "step-001000-2BT": {"step": 1000, "tokens": 2 * B},
    # BabyLM
    "chck_1M": {"words": 10**6},
    "chck_10M": {"words": 10**7},
    "chck_1000M": {"words": B},
    # trajectories in subfolders, marin
    "step-0020": {"step": 20},
    "checkpoint_pct010": {},
    "deeper-starling": {},
    "kestrel": {},
    # the Trainer, Lightning, nanotron
    "checkpoint-500": {"step": 500},
    "checkpoint-500-merged": {"step": 500},
    "epoch=1-step=2000": {"step": 2000},
    "epoch=1-step=2000.ckpt": {"step": 2000},
    "epoch_0-step_1000": {"step": 1000},
    "1000": {"step": 1000},
    "step1e5": {"step": 100_000},
    "llama-7B-step100": {"step": 100},
}

NO_CHECKPOINTS = (
    *("main", "fp16", "gguf", "onnx", "4bit", "refs/pr/3", "step-by-step", "3f2c1a9"),
    *("a3f5c1e9b7d2406c8e1f5a4b3c2d1e0f9a8b7c6d", "2024-05-01", "20240501", "v0.1", "v2", "pythia-1.4b"),
    *("llama-7B", "checkpoint-1.5B", "step-1.5", "model-00001-of-00002"),
)


@pytest.mark.parametrize(("name", "states"), [*PUBLISHED.items(), *((name, {}) for name in NO_CHECKPOINTS)])
def test_published_names(name, states):
    assert parse_progress(name) == TrainingProgress(**states)
    assert parse_series([name])[name] == TrainingProgress(**states)


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["ckpt_000", "ckpt_001", "ckpt_358"], [None, None, None]),
        ([f"ckpt_{number}" for number in range(100, 140)], [None] * 40),
        (["ckpt-100", "ckpt-200", "ckpt-1000"], [100, 200, 1000]),
        (["1000", "20240501", "2000"], [1000, 20240501, 2000]),
        (["20240501", "20240601"], [None, None]),
        (["checkpoint-1", "checkpoint-2", "checkpoint-3"], [1, 2, 3]),
    ],
)
def test_names_of_a_series_are_read_together(names, steps):
    found = parse_series(names, tokens_per_step=10)
    assert [found[name].step for name in names] == steps
    assert [found[name].tokens for name in names] == [step and 10 * step for step in steps]


def test_a_pattern_names_every_part():
    pattern = compile_pattern(r"(?P<run>\w+)/(?P<stage>\w+)@(?P<step>\S+) (?P<tokens>\S+) (?P<words>\S+)")
    found = parse_progress("a/decay@1k 2B 3M", pattern)
    assert found == TrainingProgress(1000, 2 * B, words=3 * 10**6, stage="decay", run="a")
    assert parse_progress("step1000", pattern) == TrainingProgress()
    with pytest.raises(LmsatError, match=r"none of the groups \(\?P<run>"):
        compile_pattern(r"step(\d+)")


@pytest.mark.parametrize("name", ["checkpoint-500-merged", "fp16", "step1000-gguf", "model-int8", "4bit", "x.awq"])
def test_copies_in_another_form(name):
    assert is_another_form(name)
    assert not any(map(is_another_form, ("step1000", "main", "merger", "checkpoint-4", "stage1-step4-tokens8B")))


@pytest.mark.parametrize(
    ("name", "step", "tokens"),
    [
        ("step1000", 1000, 2000),
        ("step" + DIGITS, None, None),
        (f"step9223372036854775807-tokens{DIGITS}", None, None),
        ("step9007199254740993", 9007199254740993, 18014398509481986),
        ("step5000000000000000000", 5000000000000000000, None),
        (f"tokens{DIGITS}B", None, None),
        ("step1-tokens21B", 1, 21_000_000_000),
        ("tokens0.5m", None, 500_000),
        ("epoch_3", 3, None),
    ],
)
def test_progress_is_within_64_bits(name, step, tokens):
    progress = parse_progress(name, tokens_per_step=2)
    assert (progress.step, progress.tokens) == (step, tokens)


def test_a_pattern_that_finds_thousands_of_digits():
    assert parse_progress(f"ckpt{DIGITS}", re.compile(r"ckpt(?P<step>\d+)")).step is None


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("EleutherAI/pythia-160m", 160e6),
        ("EleutherAI/pythia-v1.1-1.4b-deduped", 1.4e9),
        ("pythia-160m-0.5MtokBS", 160e6),
        ("bigscience/bloom-1b7", 1.7e9),
        ("TinyLlama-1.1B-intermediate-step-1431k-3T", 1.1e9),
        ("Qwen3-30B-A3B", 30e9),
        # Shared experts, parts left out, two numbers, amounts of data, an organisation, no number.
        *((name, None) for name in ("Mixtral-8x7B-v0.1", "gemma-3n-E2B-it", "OLMoE-1B-7B-0924", "gpt2-10B-tokens")),
        *((name, None) for name in ("fineweb-10B", "gpt2_fineweb10B", "fineweb-edu-sample-350B", "the-pile-300B")),
        ("gpt2-124M-fineweb-10B", 124e6),
        ("DataDecide-fineweb-edu-150M", 150e6),
        ("falcon-rw-1b", 1e9),
        ("DCLM-7B", 7e9),
        *((name, None) for name in ("babylm-100M", "fineweb-28BT", "train_00220B", "350m-lab/x", "gpt2-xl")),
    ],
)
def test_parameters_that_a_model_s_name_states(model, parameters):
    assert parameters_in_name(model) == parameters
