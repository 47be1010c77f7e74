"""The comparison of models with the first of them: `compare`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmsat_plugin.analysis.comparison.by_pair import (
    BITS,
    LOSS,
    Matched,
    MetricDifference,
    Side,
    geometry,
    match,
    metric_differences,
)
from lmsat_plugin.analysis.comparison.contenders import (
    EQUAL,
    At,
    Contender,
    Given,
    choose,
    find_contender,
    listed,
    place_of,
)
from lmsat_plugin.analysis.comparison.same_settings import differing_models, in_words
from lmsat_plugin.analysis.comparison.sentences import sentence_on
from lmsat_plugin.analysis.comparison.tokens_to_loss import TokensToLoss, tokens_to_loss
from lmsat_plugin.analysis.stats.differences import holm
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.metrics import is_measurement
from lmsat_plugin.results.framed import Framed


@dataclass(frozen=True)
class ComparedCheckpoint:
    """A checkpoint of a run that is compared."""

    model: str
    """The model's name in the comparison."""
    run: str
    revision: str
    place: str
    """Where in its training it lies, in words."""
    tokens: float | None
    flops: float | None
    """6 · n_params · tokens."""


@dataclass(frozen=True, eq=False)
class PairComparison:
    """One model against the reference."""

    reference: str
    model: str
    sentence: str
    checkpoints: tuple[ComparedCheckpoint, ...]
    metrics: tuple[MetricDifference, ...]
    tokens_to_loss: TokensToLoss | None
    """None without a loss on a text that both have read."""
    geometry: tuple[dict[str, Any], ...]
    """Plain values of both, as ``task, metric, a, b``."""
    notes: tuple[str, ...]
    """What else one has to know to read it."""


@dataclass(frozen=True, eq=False)
class Comparison(Framed):
    """Models against the first of them, the reference."""

    at: At
    pairs: tuple[PairComparison, ...]

    @property
    def sentence(self) -> str:
        """What the comparison says."""
        return " ".join(pair.sentence for pair in self.pairs)

    @property
    def metrics(self) -> tuple[MetricDifference, ...]:
        """The differences of all pairs."""
        return tuple(row for pair in self.pairs for row in pair.metrics)

    def frame_rows(self) -> list[dict[str, Any]]:
        """Return the differences, metric by metric."""
        return [asdict(row) for row in self.metrics]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat compare --json`` prints it."""
        pairs = [
            {
                **{"reference": pair.reference, "model": pair.model, "sentence": pair.sentence},
                "checkpoints": [asdict(checkpoint) for checkpoint in pair.checkpoints],
                "tokens_to_loss": None if pair.tokens_to_loss is None else pair.tokens_to_loss.to_dict(),
                "geometry": list(pair.geometry),
                "notes": list(pair.notes),
            }
            for pair in self.pairs
        ]
        metrics = [row.to_dict() for row in self.metrics]
        return {"sentence": self.sentence, "at": self.at, "metrics": metrics, "pairs": pairs}


def compare(*given: Given, at: At = "end") -> Comparison:
    """Compare models with the first of them, metric by metric.

    Differences are paired by document where results have the losses by document, and by question where they lie beside
    their samples (``--log_samples``), with questions about one passage taken together (Miller 2024, arXiv:2411.00640).
    Where a model has several runs, how these differ counts. Intervals are of 95 %; p-values are corrected for the
    number of metrics of all models (Holm 1979). What was measured with different settings, of fewer than ten questions
    or of none in common has no difference, and says why.

    Args:
        given: Results of one model each; or results of several models, with a name: ``(results, "MODEL")`` or
            ``(results, "MODEL@REVISION")``.
        at: Which checkpoints are compared: each model's last one (``end``); the last ones that have seen equally many
            ``tokens``, within 1 %; or those of equal ``compute``, 6 · n_params · tokens, within 10 %. Nothing is
            interpolated.

    Raises:
        LmsatError: For fewer than two models, a model or a checkpoint that is not there, models without a task in
            common, and where no checkpoints are at equal tokens or compute.
    """
    if len(given) < 2:
        raise LmsatError("one model alone has no difference: name two or more to compare")
    contenders = _named_apart([find_contender(one) for one in given])
    pairs = [_pair(contenders[0], other, at) for other in contenders[1:]]
    p_values = [row.uncorrected_p for pair in pairs for row in pair.metrics if row.uncorrected_p is not None]
    corrected = iter(holm(np.array(p_values)).tolist())
    done = []
    for pair in pairs:
        rows = tuple(
            row if row.uncorrected_p is None else replace(row, p=float(next(corrected))) for row in pair.metrics
        )
        done.append(replace(pair, metrics=rows, sentence=_sentence(rows, pair)))
    return Comparison(at=at, pairs=tuple(done))


def _sentence(rows: Sequence[MetricDifference], pair: PairComparison) -> str:
    if not rows:
        return f"{pair.model} and {pair.reference} have no metric of the same name that could be tested."
    return sentence_on(rows)


def _named_apart(contenders: list[Contender]) -> list[Contender]:
    """Return models with names of their own: those of one name in several folders have that of their folder added."""
    roots: dict[str, set[Path]] = {}
    for contender in contenders:
        roots.setdefault(contender.name, set()).add(contender.results.root)
    return [
        replace(contender, name=f"{contender.name} ({contender.results.root})")
        if len(roots[contender.name]) > 1
        else contender
        for contender in contenders
    ]


def _pair(first: Contender, second: Contender, at: At) -> PairComparison:
    tasks = set(first.table.task) & set(second.table.task)
    if not tasks:
        raise LmsatError(
            f"{first.name} and {second.name} have no task in common: the one has {_tasks(first)}, the other "
            f"{_tasks(second)}; measure both on the same tasks"
        )
    contenders = tuple(
        replace(contender, table=contender.table[contender.table.task.isin(tasks)]) for contender in (first, second)
    )
    chosen = choose((contenders[0], contenders[1]), at)
    sides = Side(contenders[0], chosen[0]), Side(contenders[1], chosen[1])
    every = list(match(sides))
    parts = _parts(sides, {matched.first[0].task.task for matched in every})
    rows: list[MetricDifference] = []
    values: list[dict[str, Any]] = []
    notes: list[str] = []
    to_loss = None
    for matched in every:
        lead, other = matched.first[0], matched.second[0]
        values += geometry(sides, matched)
        if lead.task.task in parts or (is_measurement(lead.task.task) and not lead.is_loss):
            continue
        own = list(metric_differences(sides, matched))
        rows += own
        notes += _notes(sides, matched)
        metric = next((row.metric for row in own if row.metric in (LOSS, BITS) and row.p is not None), None)
        if metric is not None and lead.is_loss and to_loss is None and not _same_runs(sides):
            to_loss = tokens_to_loss(sides, (lead, other), metric)
    return PairComparison(
        reference=first.name,
        model=second.name,
        sentence="",
        checkpoints=tuple(checkpoint for side in sides for checkpoint in _checkpoints(side)),
        metrics=tuple(rows),
        tokens_to_loss=to_loss,
        geometry=tuple(values),
        notes=tuple(dict.fromkeys([*notes, *_on_all(sides, every, parts)])),
    )


def _same_runs(sides: tuple[Side, Side]) -> bool:
    """Return whether two checkpoints of the same runs are compared."""
    one, other = sides
    return one.contender.results is other.contender.results and set(one.chosen.model) == set(other.chosen.model)


def _tasks(contender: Contender) -> str:
    return listed(sorted(set(contender.table.task)))


def _checkpoints(side: Side) -> Iterable[ComparedCheckpoint]:
    for row in side.chosen.to_dict("records"):
        tokens, flops = (None if np.isnan(number) else float(number) for number in (row["tokens"], row["compute"]))
        run, revision = str(row["model"]), str(row["revision"])
        yield ComparedCheckpoint(
            model=side.name, run=run, revision=revision, place=place_of(row), tokens=tokens, flops=flops
        )


def _parts(sides: tuple[Side, Side], tasks: set[str]) -> dict[str, str]:
    """Return the tasks that are parts of a group that is compared as a whole, each with its group."""
    parts: dict[str, str] = {}
    for measured in sides[0].measured[0]:
        members = measured.results.files[measured.path].group_members
        if measured.task.task in tasks and measured.task.task in members:
            below = list(members[measured.task.task])
            while below:
                name = below.pop()
                if name in tasks and name not in parts:
                    parts[name] = measured.task.task
                    below += members.get(name, [])
    return parts


def _notes(sides: tuple[Side, Side], matched: Matched) -> Iterator[str]:
    """Yield in what the models themselves differ, as their settings say."""
    lead, other = matched.first[0], matched.second[0]
    if (keys := differing_models(lead, other)) and matched.differing is None:
        names = (sides[0].name, sides[1].name)
        yield f"The models were not computed alike: {in_words(keys, lead, other, names)}."


def _on_all(sides: tuple[Side, Side], every: Sequence[Matched], parts: dict[str, str]) -> Iterator[str]:
    """Yield what holds for all metrics of two models."""
    one, other = sides
    runs = {side.name: len(side.chosen) for side in sides}
    several = [f"the {number} runs of {name}" for name, number in runs.items() if number > 1]
    among = f", and for how {' and '.join(several)} differ" if several else ", not for how training runs differ"
    alone = [name for name, number in runs.items() if number == 1] if several else []
    how = f"; {alone[0]} has one run, and how others of it would differ is unknown" if alone else ""
    yield f"Intervals and p allow for the sample of documents or questions{among}{how}."
    seen = [side.chosen.tokens.max() for side in sides]
    if np.isfinite(seen).all() and abs(np.log(seen[0] / seen[1])) > np.log1p(EQUAL["tokens"]):
        equal = "" if one.contender.revision or other.contender.revision else "; --at tokens compares at equal tokens"
        yield f"{one.name} has seen {seen[0]:.3g} tokens and {other.name} {seen[1]:.3g}{equal}."
    there = {matched.first[0].task.task for matched in every}
    for group in dict.fromkeys(parts.values()):
        number = sum(whole == group for whole in parts.values())
        yield f"The {number} parts of {group} are not tested beside it."
    missing = sorted((set(one.contender.table.task) | set(other.contender.table.task)) - there)
    if missing:
        yield f"Not measured at both checkpoints: {listed(missing)}."
