"""What the name of a checkpoint states: its step, tokens or words, and the run and the stage that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import pairwise

from lmsat_plugin.errors import LmsatError

_MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_LIMIT = 2**63
SIZE = r"(?:\d+(?:\.\d+)?[kmbt]|\d+[mb]\d)(?![a-z\d]|\.\d)"
"""A number with its unit in a name, such as 410m, 1.4B, or BLOOM's 1b7; a pattern without regard to case."""
# Not Mixtral's 8x7B, of which parts are shared, nor Gemma's E2B, which leaves some out, nor 100M words of data.
_PARAMETERS = re.compile(rf"(?<![a-z\d.])(?!0)(?![\d.]+[kt]){SIZE}(?![-_ ]?(?:tokens?|words?)(?![a-z]))", re.IGNORECASE)
_NAMED_AFTER_DATA = re.compile("babylm", re.IGNORECASE)
# More than 1B after the name of a corpus, as in fineweb-edu-10B, is how much of it was read. Up to 1B it is a model's
# size, as in DataDecide's c4-150M. Not DCLM and RedPajama, after which larger models are named as well.
_CORPUS_BEFORE = re.compile(
    r"(?<![a-z])(?:fineweb\d?|c4|(?:the[-_]?)?pile|slimpajama|openwebtext\d?|owt\d?|wikitext|dolma|refinedweb|"
    r"cosmopedia|open[-_]?web[-_]?math|climbmix|nemotron[-_]?cc|starcoderdata)"
    r"(?:[-_ ]?(?:edu|en|v\d|dedup(?:ed|licated)?|sample))*[-_ ]?$",
    re.IGNORECASE,
)
_LARGEST_AFTER_CORPUS = 1_000_000_000
_GROUPS = ("run", "stage", "step", "tokens", "words")
# Pythia's step1000, OLMo's stage1-step5000-tokens21B, Megatron's iter_0001000, the Trainer's checkpoint-500,
# DeepSpeed's global_step1000, Lightning's epoch=1-step=2000, TinyLlama's step-1431k-3T, step1e5.
_STEP = re.compile(
    r"(?:^|[^a-z])(?P<word>global_?step|step|iter(?:ation)?|checkpoint|ckpt|chkpt|epoch)s?[-_=]?"
    r"(?P<number>\d+(?:e\d{1,2}|[km](?![a-z]))?)(?![\da-z]|\.\d)",
    re.IGNORECASE,
)
# The words, from the one that says most surely that a number counts steps to the one that says least.
_SURE = ("step", "iter", "checkpoint", "ckpt", "epoch")
# tokens21B, and RedPajama's 240b_tokens, but not 955k-token-2T.
_TOKENS = re.compile(
    r"(?:^|[^a-z])tokens?[-_=]?(?P<number>\d+(?:\.\d+)?[kmbt]?)(?![a-z\d.])"
    r"|(?:^|[^a-z\d.])(?P<before>\d+(?:\.\d+)?[kmbt]?)[-_]?tokens?(?![a-z\d]|[-_=]?\d)",
    re.IGNORECASE,
)
# FineWeb's step-001000-2BT and Baichuan's train_00220B. After a step, 3T is tokens; elsewhere 7B is a model's size.
_SHORT_TOKENS = re.compile(
    r"(?:^|[-_])(?P<of_text>\d+(?:\.\d+)?[kmbt])t(?![a-z\d])"
    r"|step[-_=]?\d+k?[-_](?P<after>\d+(?:\.\d+)?[bt])(?![a-z\d])"
    r"|^train[-_](?P<trained>\d+(?:\.\d+)?[bt])$",
    re.IGNORECASE,
)
# BabyLM's chck_10M.
_WORDS = re.compile(
    r"(?:^|[^a-z])(?:chck|words?)[-_=]?(?P<number>\d+(?:\.\d+)?[kmb]?)(?![a-z\d.])"
    r"|(?:^|[^a-z\d.])(?P<before>\d+(?:\.\d+)?[kmb]?)[-_]?words?(?![a-z\d])",
    re.IGNORECASE,
)
# OLMo's stage2, Crystal's phase1, Apertus' longctx, SmolLM3's lc-4k-to-32k, Lucie's extension.
_STAGE = re.compile(
    r"(?:^|[-_/.])(?P<stage>(?:stage|phase)[-_]?\d+|lc[-_]\d+k?[-_]to[-_]\d+k?|long[-_]?(?:ctx|context)|extension|"
    r"cool[-_]?down|anneal(?:ing|ed)?|decay|mid[-_]?train(?:ing)?|post[-_]?train(?:ing)?|sft|dpo|rlvr|rlhf|grpo)"
    r"(?=$|[-_/.])",
    re.IGNORECASE,
)
# OLMo's ingredient1, DataDecide's seed-small-aux-2, PolyPythias' seed3 and data-seed1.
_RUN = re.compile(
    r"(?:^|[-_/.])(?P<run>(?:ingredient|run|replica|trial)[-_]?\d+|(?:(?:data|weight|init)[-_])?seed[-_=]?\d+)(?=$|[-_/.])"
    r"|(?:^|[-_/.])seed[-_](?P<named>[a-z][a-z\d]*(?:-[a-z\d]+)*)$",
    re.IGNORECASE,
)
_SHARE = re.compile(r"(?:^|[-_])(?:pct[-_]?\d+(?![\d.])|\d+pct(?![a-z\d]))", re.IGNORECASE)
# An index such as Amber's ckpt_012 has leading zeros and few digits.
_INDEX = re.compile(r"0\d{0,3}|00\d{0,3}")
_IN_ANOTHER_FORM = re.compile(
    r"(?:^|[-_.])(?:merged|fp16|bf16|fp8|gguf|onnx|awq|gptq|exl2|mlx|(?:int)?[48]-?bit|int[48]|safetensors)(?=$|[-_.])",
    re.IGNORECASE,
)
# Averages of checkpoints that a sweep makes: average:5@step5000, average:1000..5000@step5000, ema:0.9@step5000.
_AVERAGE = re.compile(r"(?P<how>(?:average|ema):[^@\s]+)@(?P<last>.+)")


@dataclass(frozen=True)
class TrainingProgress:
    """Where in a training a checkpoint lies; each part is None where it is unknown."""

    step: int | None = None
    """Optimiser steps since its stage began."""
    tokens: int | None = None
    words: int | None = None
    """Words seen, in a series that counts these."""
    stage: str | None = None
    """The stage's own name, such as ``stage1`` or ``longctx``."""
    run: str | None = None
    """What tells replicates or branches apart, such as ``seed3`` or ``ingredient1``."""

    @property
    def is_placed(self) -> bool:
        """Whether a step, tokens or words are known."""
        return not (self.step is None and self.tokens is None and self.words is None)


def averaging_of(revision: str | None) -> str | None:
    """Return how an average of checkpoints is made, such as ``average:5``, by its name; None for another checkpoint."""
    match = _AVERAGE.fullmatch(revision or "")
    return match["how"] if match else None


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return a user's pattern. Raises `LmsatError` unless it is a pattern with a group that states something."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise LmsatError(f"step_pattern='{pattern}' is not a regular expression ({error}): correct it") from None
    if not set(_GROUPS) & compiled.groupindex.keys():
        groups = ", ".join(f"(?P<{name}>...)" for name in _GROUPS)
        raise LmsatError(f"step_pattern='{pattern}' has none of the groups {groups}: add one")
    return compiled


@lru_cache(maxsize=4096)
def parse_progress(
    name: str, pattern: re.Pattern[str] | None = None, tokens_per_step: int | None = None
) -> TrainingProgress:
    """Return what the name of a revision, a folder or a repository states by itself; see `parse_series`.

    ``pattern`` finds it in other names, by its groups ``run``, ``stage``, ``step``, ``tokens`` and ``words``.
    ``tokens_per_step`` gives the tokens where the name states the step alone; an epoch has no tokens.
    """
    if pattern is not None:
        match = pattern.search(name)
        groups = match.groupdict() if match else {}
        step, tokens, words = (parse_count(groups.get(key)) for key in ("step", "tokens", "words"))
        stage, run = groups.get("stage") or None, groups.get("run") or None
        stated = TrainingProgress(step, tokens, words=words, stage=stage, run=run)
        is_epoch = False
    else:
        stated, is_epoch = _by_rules(name)
    if stated.tokens is None and stated.step is not None and tokens_per_step is not None and not is_epoch:
        tokens = stated.step * tokens_per_step
        stated = replace(stated, tokens=tokens if tokens < _LIMIT else None)
    return stated


def parse_series(
    names: Iterable[str], pattern: re.Pattern[str] | None = None, tokens_per_step: int | None = None
) -> dict[str, TrainingProgress]:
    """Return what each name of one series states, where the others may tell what a number is.

    Bare numbers are steps, unless all of them read as dates. The numbers of ``ckpt-100`` count steps if they grow like
    steps, and are an index if they count 1, 2, 3.
    """
    names = list(dict.fromkeys(names))
    stated = {name: parse_progress(name, pattern, tokens_per_step) for name in names}
    if pattern is not None:
        return stated
    bare = [name for name in names if is_bare(name)]
    if not all(map(_is_date, bare)):
        stated.update((name, parse_progress(f"step{name}", None, tokens_per_step)) for name in bare)
    numbers: dict[str, int] = {}
    for name in names:
        match = _step_match(name)
        if match is not None and _word(match) == "ckpt" and (number := parse_count(match["number"])) is not None:
            numbers[name] = number
    if len(numbers) > 1:
        ordered = sorted(set(numbers.values()))
        in_a_row = sum(after - before == 1 for before, after in pairwise(ordered))
        is_index = 2 * in_a_row >= len(ordered) - 1 or any(_is_index(name) for name in numbers)
        for name in numbers:
            if is_index:
                # Tokens that its name states stay, not those of a step that it is not.
                stated[name] = replace(parse_progress(name), step=None)
    return stated


def is_another_form(name: str) -> bool:
    """Return whether a name says that it holds a copy of a checkpoint: merged, quantised, or of another format."""
    return bool(_IN_ANOTHER_FORM.search(name))


def without_place(name: str) -> str:
    """Return a name without the run, stage, step, tokens and words that it states: what those of one model share."""
    if is_bare(name):
        return ""
    for pattern in (_SHORT_TOKENS, _TOKENS, _WORDS, _STEP, _RUN, _STAGE):
        name = pattern.sub("-", name)
    name = re.sub(r"[-_.]*-[-_.]*", "-", name).strip("-_.")
    return re.sub(r"[-_](?:intermediate|checkpoints?|ckpts?)+$", "", name, flags=re.IGNORECASE)


def shape_of(name: str) -> str | None:
    """Return what names that differ in their numbers alone have in common; None for a name without a number."""
    return re.sub(r"\d+", "0", name) if re.search(r"\d", name) else None


def parse_count(text: str | None) -> int | None:
    """Return the number that ``21B``, ``0.5m``, ``1e5`` or ``1_000`` stands for.

    None for other text, and beyond 64 bits.
    """
    match = re.fullmatch(r"(\d[\d_,]*(?:\.\d+)?)(?:e(\d{1,2}))?\s*([kmbt]?)", text or "", re.IGNORECASE)
    if match is None:
        return None
    digits, multiple = re.sub("[_,]", "", match[1]), _MULTIPLES[match[3].lower()] * 10 ** int(match[2] or 0)
    # Floats hold no whole number beyond 2^53 exactly.
    number = float(digits) * multiple
    if not number < _LIMIT:
        return None
    return int(digits) * multiple if digits.isdecimal() else round(number)


def parse_size(text: str) -> int | None:
    """Return the number that `SIZE` finds, such as 1,700,000,000 of ``1b7``; None for other text."""
    return parse_count(re.sub(r"(\d)([mb])(\d)$", r"\1.\3\2", text, flags=re.IGNORECASE))


def parameters_in_name(model: str) -> int | None:
    """Return the number of parameters that a model's name states, such as 160,000,000 of ``pythia-160m``.

    None for a name that states none, or several numbers, as OLMoE-1B-7B and GPT2-124M-10B do.
    """
    found = {parse_size(match[0]) for match in _sizes_in(model)}
    return found.pop() if len(found) == 1 else None


def size_in_name(model: str) -> str | None:
    """Return the number of parameters of `parameters_in_name` as the name writes it, such as ``160m``."""
    return _sizes_in(model)[0][0] if parameters_in_name(model) is not None else None


def without_parameters(model: str) -> str:
    """Return a model's name without the number of parameters that it states: what a family of models shares."""
    head, slash, name = model.rpartition("/")
    for match in reversed(_sizes_in(name)):
        name = name[: match.start()] + name[match.end() :]
    return head + slash + name


def _sizes_in(model: str) -> list[re.Match[str]]:
    """Return where a model's name, without its organisation, states numbers of parameters."""
    name = model.rpartition("/")[2]
    if _NAMED_AFTER_DATA.search(name):
        return []
    return [
        match
        for match in _PARAMETERS.finditer(name)
        if (parse_size(match[0]) or 0) <= _LARGEST_AFTER_CORPUS or not _CORPUS_BEFORE.search(name[: match.start()])
    ]


def _by_rules(name: str) -> tuple[TrainingProgress, bool]:
    """Return what a name states by the published schemes, and whether its step is an epoch."""
    match, run, stage = _step_match(name), _RUN.search(name), _STAGE.search(name)
    tokens = _first_count(_TOKENS.search(name)) or _first_count(_SHORT_TOKENS.search(name))
    words = _first_count(_WORDS.search(name))
    step = None
    if is_bare(name):
        step = None if _is_date(name) else parse_count(name)
    elif match is not None and _SHARE.search(name) is None:
        step = None if _is_index(name) else parse_count(match["number"])
    progress = TrainingProgress(
        step=step,
        tokens=tokens,
        words=words,
        stage=stage["stage"] if stage else None,
        run=_run_name(run) if run else None,
    )
    return progress, match is not None and _word(match) == "epoch"


def _run_name(match: re.Match[str]) -> str:
    # seed3, seed-3 and seed_3 are one.
    return match["named"] or re.sub(r"[-_=](?=\d+$)", "", match["run"])


def _step_match(name: str) -> re.Match[str] | None:
    """Return the step in a name: of several numbers, the one after the surest word."""
    matches = list(_STEP.finditer(name))
    return min(matches, key=lambda match: _SURE.index(_word(match)), default=None)


def _is_index(name: str) -> bool:
    match = _step_match(name)
    return match is not None and _word(match) == "ckpt" and bool(_INDEX.fullmatch(match["number"]))


def _word(match: re.Match[str]) -> str:
    word = match["word"].lower().replace("_", "")
    return {"globalstep": "step", "iteration": "iter", "chkpt": "ckpt"}.get(word, word)


def _first_count(match: re.Match[str] | None) -> int | None:
    return next((parse_count(text) for text in match.groups() if text), None) if match else None


def is_bare(name: str) -> bool:
    """Return whether a name is a number and nothing else."""
    return re.fullmatch(r"\d{1,19}", name, re.ASCII) is not None


def _is_date(name: str) -> bool:
    try:
        return 1990 <= datetime.strptime(name, "%Y%m%d").year <= 2100 and len(name) == 8
    except ValueError:
        return False
