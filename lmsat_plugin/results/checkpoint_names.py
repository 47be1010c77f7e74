"""The training step and the tokens that the name of a checkpoint states."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from lmsat_plugin.errors import LmsatError

_MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_LIMIT = 2**63
# OLMo's stage1-step5000-tokens21B, Pythia's step1000, DataDecide's step69369-seed-default, Megatron's
# iter_0001000, the Trainer's checkpoint-500, DeepSpeed's global_step1000, epoch_3, ckpt-100.
_STEP = re.compile(
    r"(?:^|[^a-z])(global_?step|step|checkpoint|ckpt|chkpt|iter(?:ation)?|epoch)s?[-_=]?(\d+)(?![\d.]|[kmbt]\b)",
    re.IGNORECASE,
)
_TOKENS = re.compile(r"(?:^|[^a-z])tokens?[-_=]?(\d+(?:\.\d+)?)([kmbt]?)(?![a-z\d.])", re.IGNORECASE)


@dataclass(frozen=True)
class TrainingProgress:
    """How far training had come: optimiser steps and tokens, each None where it is unknown."""

    step: int | None = None
    tokens: int | None = None


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return a user's pattern. Raises `LmsatError` unless it is a pattern with a group ``step`` or ``tokens``."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise LmsatError(f"step_pattern='{pattern}' is not a regular expression ({error}): correct it") from None
    if not {"step", "tokens"} & compiled.groupindex.keys():
        raise LmsatError(f"step_pattern='{pattern}' has no group (?P<step>...) or (?P<tokens>...): add one")
    return compiled


@lru_cache(maxsize=4096)
def parse_progress(
    name: str, pattern: re.Pattern[str] | None = None, tokens_per_step: int | None = None
) -> TrainingProgress:
    """Return the step and the tokens that the name of a revision or a folder states.

    ``pattern`` finds them in other names, by its groups ``step`` and ``tokens``. ``tokens_per_step`` gives the tokens
    where the name states the step alone; an epoch has no tokens.
    """
    if pattern is not None:
        match = pattern.search(name)
        groups = match.groupdict() if match else {}
        step, tokens = _count(groups.get("step")), _count(groups.get("tokens"))
    else:
        match = _STEP.search(name)
        step = _count(match[2]) if match else None
        if match and match[1].lower() == "epoch":
            tokens_per_step = None
        match = _TOKENS.search(name)
        tokens = _count(match[1] + match[2]) if match else None
    if tokens is None and step is not None and tokens_per_step is not None:
        tokens = step * tokens_per_step
        tokens = tokens if tokens < _LIMIT else None
    return TrainingProgress(step, tokens)


def _count(text: str | None) -> int | None:
    """Return the number that ``21B``, ``0.5m`` or ``1_000`` stands for; None for other text, and beyond 64 bits."""
    match = re.fullmatch(r"(\d[\d_,]*(?:\.\d+)?)\s*([kmbt]?)", text or "", re.IGNORECASE)
    if match is None:
        return None
    digits, multiple = re.sub("[_,]", "", match[1]), _MULTIPLES[match[2].lower()]
    # Floats hold no whole number beyond 2^53 exactly.
    number = float(digits) * multiple
    if not number < _LIMIT:
        return None
    return int(digits) * multiple if digits.isdecimal() else round(number)
