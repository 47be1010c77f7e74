"""Names of checkpoints: steps and tokens within 64 bits, and nothing where a name states more."""

from __future__ import annotations

import re

import pytest

from lmsat_plugin.results.checkpoint_names import parse_progress

DIGITS = "9" * 5000


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
    ],
)
def test_progress_is_within_64_bits(name, step, tokens):
    progress = parse_progress(name, tokens_per_step=2)
    assert (progress.step, progress.tokens) == (step, tokens)


def test_a_pattern_that_finds_thousands_of_digits():
    assert parse_progress(f"ckpt{DIGITS}", re.compile(r"ckpt(?P<step>\d+)")).step is None
