"""One model against another: which results of theirs belong together, and the difference of each metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.analysis.comparison.contenders import Contender
from lmsat_plugin.analysis.comparison.measured import Key, Measured, Units
from lmsat_plugin.analysis.comparison.paired import RunValue, Tested, compared, untested
from lmsat_plugin.analysis.comparison.same_settings import differing_settings, in_words, settings_of
from lmsat_plugin.analysis.stats.differences import SIGNIFICANT

if TYPE_CHECKING:
    import pandas as pd

LOSS, BITS = "loss", "bits_per_byte"
GEOMETRY = {
    "lmsat_anisotropy": ("anisotropy_last", "anisotropy_mean", "effective_rank_last"),
    "lmsat_head": ("singular_entropy", "effective_rank"),
}
"""The measures of geometry that are shown side by side, by task."""
_NO_SCORES = {"chance"}
"""Metrics that depend on the questions alone."""


@dataclass(frozen=True, kw_only=True)
class MetricDifference(Tested):
    """One metric of one task, of a model and of the reference that it is compared with; see `Tested`."""

    reference: str
    model: str
    task: str
    metric: str
    num_fewshot: int | None
    filter: str
    corpus: str | None
    higher_is_better: bool | None
    uncorrected_p: float | None = None
    """``p`` before Holm's correction for the number of metrics."""

    @property
    def better(self) -> str | None:
        """The model that is better, by the test at 5 %; None where none is shown to be, or no direction is known."""
        if self.p is None or self.p > SIGNIFICANT or self.higher_is_better is None or not self.difference:
            return None
        return self.model if (self.difference > 0) == self.higher_is_better else self.reference

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat compare --json`` prints it."""
        named = {name: getattr(self, name) for name in ("task", "metric")}
        return {**named, **asdict(self), "better": self.better}


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two models, and the checkpoints of its runs that are compared."""

    contender: Contender
    chosen: pd.DataFrame
    """A row for each run, see `Contender.checkpoints`."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.contender.name

    @cached_property
    def measured(self) -> list[list[Measured]]:
        """What was measured at the checkpoint of each run."""
        results = self.contender.results
        tasks = {(task.origin.path, task.task): task for task in results.tasks}
        runs = []
        for run, revision in zip(self.chosen.model, self.chosen.revision, strict=True):
            table = self.contender.table
            rows = table[(table.model == run) & (table.revision == revision)]
            runs.append(
                [
                    Measured(results, tasks[str(path), str(task)], own)
                    for (path, task), own in rows.groupby(["path", "task"], sort=False)
                ]
            )
        return runs


@dataclass(frozen=True, eq=False)
class Matched:
    """The results of one task that are compared: of each run of the first model, and of each run of the second."""

    first: list[Measured]
    second: list[Measured]
    differing: str | None
    """In which settings they differ, in words; None where they are measured alike."""
    in_part: bool
    """Whether they are of the same text or questions in part alone."""

    @property
    def runs(self) -> list[Measured]:
        """The results of all runs."""
        return [*self.first, *self.second]


def match(sides: tuple[Side, Side]) -> Iterator[Matched]:
    """Yield the results of each task that both models have, in the order of the tasks' names.

    A task with several numbers of shots, texts or settings is several results. What one model has of a task, and the
    other has only with other settings, is yielded with these.
    """
    names = (sides[0].name, sides[1].name)
    runs = [*sides[0].measured, *sides[1].measured]
    of_first = len(sides[0].measured)
    for task in sorted(set.intersection(*({measured.task.task for measured in run} for run in runs))):
        leads, *others = ([measured for measured in run if measured.task.task == task] for run in runs)
        found = []
        for lead in leads:
            every = [lead, *(min(run, key=lambda other: len(_unlike(lead, other))) for run in others)]
            unlike = next((other for other in every if _unlike(lead, other)), None)
            said = None if unlike is None else in_words(_unlike(lead, unlike), lead, unlike, names)
            in_part = any(_extent(lead, other) for other in every)
            found.append(Matched(every[:of_first], every[of_first:], differing=said, in_part=in_part))
        yield from [matched for matched in found if matched.differing is None] or found[:1]


def _unlike(first: Measured, second: Measured) -> set[str]:
    """Return the settings for which two results of a task are not compared."""
    return differing_settings(first, second) - _extent(first, second)


def _extent(first: Measured, second: Measured) -> set[str]:
    """Return the settings that let one result hold more than the other, where what both hold can be compared."""
    keys = differing_settings(first, second) & {"limit", "sha256"}
    if first.is_loss:
        return keys & {"sha256"} if keys and _cut_by_tokenizers(first, second) else set()
    return keys & {"limit"} if first.units and second.units else set()


def _cut_by_tokenizers(first: Measured, second: Measured) -> bool:
    """Return whether two tokenizers read the same text, each up to a number of its own tokens.

    Then their documents have the same bytes, up to the last one of the shorter text, which is cut.
    """
    settings = [settings_of(measured).get("max_tokens") for measured in (first, second)]
    digests = [measured.tokenizer for measured in (first, second)]
    if None in (*settings, *digests) or settings[0] != settings[1] or digests[0] == digests[1]:
        return False
    of_bytes = [[units for (name, _), units in one.units.items() if name == BITS] for one in (first, second)]
    if not all(of_bytes):
        return False
    keys, others = (units[0].keys for units in of_bytes)
    shared = min(len(keys), len(others)) - 1
    return shared > 0 and keys[:shared] == others[:shared] and keys != others


def metric_differences(sides: tuple[Side, Side], matched: Matched) -> Iterator[MetricDifference]:
    """Yield the difference of each metric of a task that both models have, without corrected p."""
    lead = matched.first[0]
    rows = zip(lead.values.metric, lead.values["filter"], lead.values.higher_is_better, strict=True)
    for name, filter_, higher in rows:
        if any((name, filter_) not in measured.found for measured in matched.runs) or not _is_tested(matched, name):
            continue
        runs = [_of_run(measured, (name, filter_)) for measured in matched.runs]
        first, second = runs[: len(matched.first)], runs[len(matched.first) :]
        reason = _why_not(sides, matched, name, runs)
        tested = compared(first, second) if reason is None else untested(first, second, reason)
        yield MetricDifference(
            **{field.name: getattr(tested, field.name) for field in fields(Tested)},
            uncorrected_p=tested.p,
            reference=sides[0].name,
            model=sides[1].name,
            task=lead.task.task,
            metric=str(name),
            num_fewshot=lead.task.num_fewshot,
            filter=str(filter_),
            corpus=lead.task.corpus,
            higher_is_better=bool(higher) if isinstance(higher, bool | np.bool_) else None,
        )


def _is_tested(matched: Matched, name: str) -> bool:
    """Return whether a metric has a row: not functions of the loss, and nothing that depends on the text alone."""
    if not matched.first[0].is_loss:
        return name not in _NO_SCORES
    return name == LOSS or (name == BITS and not _same_tokens(matched))


def _same_tokens(matched: Matched) -> bool:
    """Return whether all read the same documents in as many tokens each, or as many in all where that is not kept."""
    of_loss = [[units.keys for (name, _), units in one.units.items() if name == LOSS] for one in matched.runs]
    if all(of_loss):
        return all(keys == of_loss[0] for keys in of_loss)
    counts = [(measured.value("tokens"), measured.value("bytes")) for measured in matched.runs]
    return len({count for count in counts if None not in count}) < 2


def _of_run(measured: Measured, key: Key) -> RunValue:
    value, stderr = measured.found[key]
    loss = measured.value(LOSS)
    if measured.is_loss and key[0] == BITS and loss:
        # On one text, bits per byte are a multiple of nats per token.
        stderr = measured.found[LOSS, key[1]][1] * value / loss
    return RunValue(value=value, stderr=stderr, n=measured.task.n_samples, units=measured.units.get(key))


def _why_not(sides: tuple[Side, Side], matched: Matched, name: str, runs: Sequence[RunValue]) -> str | None:
    """Return why a metric is not compared, in words; None where it can be."""
    if matched.differing is not None:
        return f"measured with different settings: {matched.differing}"
    if matched.first[0].is_loss and name == LOSS and not _same_tokens(matched):
        return f"the tokenizers of {sides[0].name} and {sides[1].name} differ, so that losses per token do not compare"
    units = [run.units for run in runs if run.units is not None]
    if matched.in_part and len(units) < len(runs):
        return "measured on different texts or questions, of which no single ones are kept"
    if not matched.first[0].has_template and _prompts_differ(units):
        return "the prompts of the same questions differ, as with other few-shot examples"
    return None


def _prompts_differ(units: Sequence[Units]) -> bool:
    """Return whether some question was asked in several ways."""
    asked: dict[str, str] = {}
    return any(
        asked.setdefault(key, prompt) != prompt
        for one in units
        for key, prompt in zip(one.keys, one.prompts, strict=False)
        if prompt
    )


def geometry(sides: tuple[Side, Side], matched: Matched) -> Iterator[dict[str, Any]]:
    """Yield the plain values of each measure of the representations' and the head's geometry, means over runs."""
    lead = matched.first[0]
    for name in GEOMETRY.get(lead.task.task, ()):
        values = [[one.value(name) for one in runs] for runs in (matched.first, matched.second)]
        a, b = (None if None in own else _finite_mean(own) for own in values)
        if (a, b) != (None, None):
            yield {
                **{"reference": sides[0].name, "model": sides[1].name, "task": lead.task.task, "metric": name},
                **{"a": a, "b": b, "reason": matched.differing and f"different settings: {matched.differing}"},
            }


def _finite_mean(values: Sequence[float | None]) -> float | None:
    mean = float(np.mean(np.array(values, dtype=np.float64)))
    return mean if np.isfinite(mean) else None
