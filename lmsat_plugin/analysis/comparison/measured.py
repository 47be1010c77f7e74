"""What was measured of one task, and what its values are made of: scores of documents or questions.

Shapes: M documents or questions.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.array_files import ArraysError, loss_tasks
from lmsat_plugin.results.json_values import as_dict, as_text
from lmsat_plugin.results.question_scores import SamplesError, read_questions
from lmsat_plugin.results.reading import TaskResult
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

Parts = tuple[np.ndarray, np.ndarray]
"""What each unit adds to a value, and what the sum of that is divided by, both of shape [M]."""


def _mean(scores_M: np.ndarray) -> Parts:
    return scores_M, np.ones(len(scores_M))


def _ratio(scores_M2: np.ndarray) -> Parts:
    return scores_M2[:, 0], scores_M2[:, 1]


def _bits(scores_M2: np.ndarray) -> Parts:
    return -scores_M2[:, 0] / math.log(2), scores_M2[:, 1]


def _exponential(parts: Callable[[np.ndarray], Parts]) -> Callable[[np.ndarray], Parts]:
    """Return the parts of e^−x, linear in those of x."""

    def perplexity(scores: np.ndarray) -> Parts:
        sums_M, counts_M = parts(scores)
        mean = sums_M.sum() / counts_M.sum()
        # Clipped: a model that gives text no chance has no finite perplexity.
        value = math.exp(min(-mean, 700.0))
        return value * (counts_M - (sums_M - mean * counts_M)), counts_M

    return perplexity


_AGGREGATES: dict[int, tuple[Callable[[np.ndarray], Parts], ...]] = {
    1: (_mean, _exponential(_mean)),
    2: (_ratio, _exponential(_ratio), _bits),
}
"""How lm-eval makes a value of its questions' scores, by the number of axes of these: mean and perplexity; ratio of two
sums, perplexity of a word or a byte, and bits per byte."""
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Units:
    """The documents or questions that a value is made of."""

    kind: Literal["document", "question"]
    keys: tuple[str, ...]
    """What identifies each of them among those of another result."""
    scores: np.ndarray
    """A number for each, shape [M], or a sum and what it is divided by, shape [M, 2]."""
    parts: Callable[[np.ndarray], Parts] = _mean
    """How the value is made of the scores."""
    passages: tuple[str, ...] = ()
    """The text that each question is about; a question that shares none has its own. Empty for documents."""
    prompts: tuple[str, ...] = ()
    """The hash of what the model read for each question. Empty for documents."""

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each unit among the scores, by its key."""
        return {key: place for place, key in enumerate(self.keys)}

    def of(self, keys: Sequence[str]) -> Parts:
        """Return the parts of the value over some of the units, in this order."""
        return self.parts(self.scores[[self.places[key] for key in keys]])


Key = tuple[str, str]
"""A metric and its filter."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of one task at one checkpoint."""

    results: Results
    task: TaskResult
    values: pd.DataFrame
    """Its rows of the table."""

    @property
    def path(self) -> str:
        """The result file, as the table names it."""
        return self.task.origin.path

    @cached_property
    def notes(self) -> dict[str, Any]:
        """What lmsat noted of the measurement."""
        return self.results.notes(self.path, self.task.task)

    @property
    def is_loss(self) -> bool:
        """Whether it is the loss on a corpus."""
        return self.task.task in loss_tasks(self.notes)

    @property
    def tokenizer(self) -> str | None:
        """The digest of the tokenizer of a corpus; None where it is not stated."""
        return as_text(as_dict(self.notes.get("corpus")).get("tokenizer_sha256"))

    @property
    def has_template(self) -> bool:
        """Whether questions were asked in a chat template, of which each model has its own."""
        return "chat_template_sha" in self.task.model_settings

    @cached_property
    def found(self) -> dict[Key, tuple[float, float]]:
        """Values and standard errors, NaN where unknown, by metric and filter."""
        rows = self.values
        pairs = zip(rows.value, rows.stderr, strict=True)
        return dict(zip(zip(rows.metric, rows["filter"], strict=True), pairs, strict=True))

    def value(self, metric: str) -> float | None:
        """Return the value of a metric under any filter; None without one."""
        return next((value for (name, _), (value, _) in self.found.items() if name == metric), None)

    @cached_property
    def units(self) -> dict[Key, Units]:
        """What its values are made of, by metric and filter, where that was kept and gives the value."""
        try:
            candidates = _documents(self) if self.is_loss else _questions(self)
        except (ArraysError, SamplesError) as error:
            logger.warning("Not compared one by one: %s", error)
            return {}
        units = {}
        for key, own in candidates.items():
            value, _ = self.found[key]
            for parts in _AGGREGATES[own.scores.ndim] if math.isfinite(value) and len(own.keys) else ():
                sums_M, counts_M = parts(own.scores)
                if math.isclose(sums_M.sum() / counts_M.sum(), value, rel_tol=_SAME, abs_tol=_SAME * 1e-3):
                    units[key] = replace(own, parts=parts)
                    break
        return units


def _documents(measured: Measured) -> dict[Key, Units]:
    """Return nats by document, over their tokens for the loss, over ln 2 times their bytes for bits per byte."""
    try:
        arrays = measured.results.arrays(measured.path, measured.task.task, "loss/by_document")
    except ArraysError:
        raise
    except LmsatError as error:
        logger.info("No losses by document: %s", error)
        return {}
    units: dict[Key, Units] = {}
    for metric, name, factor in (("loss", "tokens", 1.0), ("bits_per_byte", "bytes", math.log(2))):
        if (counts_M := arrays.get(f"loss/by_document_{name}")) is not None:
            scores_M2 = np.stack([arrays["loss/by_document"], factor * counts_M], axis=1).astype(np.float64)
            # Of one text, documents are told apart by their order; the counts show that it is the same text.
            keys = tuple(f"{place} of {count}" for place, count in enumerate(counts_M.tolist()))
            own = Units(kind="document", keys=keys, scores=scores_M2)
            units |= {key: own for key in measured.found if key[0] == metric}
    return units


def _questions(measured: Measured) -> dict[Key, Units]:
    """Return the questions of a task, or of all the tasks of a group."""
    result = measured.results.files[measured.path]
    parts = [(task, read_questions(result, task)) for task in _leaves(measured, measured.task.task)]
    units: dict[Key, Units] = {}
    for metric, filter_ in measured.found:
        found = [(task, questions) for task, by_filter in parts if (questions := by_filter.get(filter_)) is not None]
        scores = [questions.scores[metric] for _, questions in found if metric in questions.scores]
        if len(scores) < len(parts) or len({one.ndim for one in scores}) > 1:
            continue
        units[metric, filter_] = Units(
            kind="question",
            keys=tuple(f"{task} {key}" for task, questions in found for key in questions.keys),
            scores=np.concatenate(scores),
            prompts=tuple(prompt for _, questions in found for prompt in questions.prompts),
            passages=tuple(
                f"{task} {text}" for task, questions in found for text in questions.passages or questions.keys
            ),
        )
    return units


def _leaves(measured: Measured, task: str, depth: int = 0) -> Iterator[str]:
    """Yield the tasks that a group consists of, or the task itself."""
    members = measured.results.files[measured.path].group_members.get(task, [])
    if not members or depth > 9:
        yield task
        return
    for member in members:
        yield from _leaves(measured, str(member), depth + 1)
