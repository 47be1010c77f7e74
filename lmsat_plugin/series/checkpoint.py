"""What a checkpoint and a series are: names, places in training, and what of a series is left out and why."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from lmsat_plugin.results.checkpoint_names import TrainingProgress, averaging_of, is_another_form
from lmsat_plugin.results.training_order import Totals, branch_of, natural, totals_of, training_key

logger = logging.getLogger(__name__)

MAIN = ("main", "master")
"""Branches that hold the last model, or an average."""
ANOTHER_FORM = "a copy in another form"
NO_CHECKPOINT = "no checkpoint of the run"
NO_PLACE = "states no step, tokens or words"
_PLACE = ("run", "stage", "step", "tokens", "words", "total_step", "total_tokens")
_MOST_NAMES = 8
_said: set[tuple[str, str]] = set()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One checkpoint of a series."""

    model: str
    """The name of the series."""
    pretrained: str
    """The repository of the Hub, or the checkpoint's own folder."""
    revision: str
    """The branch or tag, the folder's name, or the repository's own where each holds one checkpoint."""
    within: str | None = None
    """The repository or the folder of its run, where another run of the model has a checkpoint of that name."""
    run: str | None = None
    stage: str | None = None
    step: int | None = None
    tokens: int | None = None
    words: int | None = None
    total_step: int | None = None
    """Steps since the start of the training, where a stage counts from 0 again."""
    total_tokens: int | None = None
    commit: str | None = None
    """The commit of the revision; None for a folder."""
    subfolder: str | None = None
    """Its path in the repository at the commit; None for the root."""
    folder: Path | None = None
    """The checkpoint's folder; None for one of the Hub and for an average."""
    parts: tuple[Checkpoint, ...] = ()
    """Of an average of checkpoints, those that it is made of, in the order of training; () for all others."""
    aside: str | None = field(default=None, compare=False)
    """Why nothing but its name selects it, such as that it is a copy in another form; None for all others."""

    @property
    def name(self) -> str:
        """What it is called among the checkpoints of its model."""
        return f"{self.within}/{self.revision}" if self.within else self.revision

    @property
    def last(self) -> Checkpoint:
        """The last part of an average, whose place in training it has; itself for all others."""
        return self.parts[-1] if self.parts else self

    @property
    def on_hub(self) -> bool:
        """Whether its files are the Hub's."""
        return self.folder is None and not self.parts

    @property
    def is_copy(self) -> bool:
        """Whether its name is that of a main branch, or of a copy in another form."""
        return self.revision in MAIN or is_another_form(self.revision)

    @property
    def ref(self) -> str | None:
        """What the Hub calls its commit: the branch or the tag; the commit itself where it has a name of its own."""
        is_a_ref = self.subfolder is None and self.revision != self.pretrained.rpartition("/")[2]
        return self.revision if is_a_ref else self.commit

    @property
    def content(self) -> str | None:
        """What identifies its files on the Hub, whatever it is called: the commit and the path; None for a folder."""
        return f"{self.commit}/{self.subfolder}" if self.subfolder else self.commit

    @property
    def place(self) -> dict[str, Any]:
        """What results note of where in the training it lies, by the names of the table's columns."""
        return {name: getattr(self, name) for name in _PLACE}

    @property
    def branch(self) -> str | None:
        """The stage that began again and that it is of, and how it is averaged; None for one of pretraining."""
        stage = branch_of(self.progress, Totals(self.total_step, self.total_tokens))
        return ", ".join(filter(None, (stage, averaging_of(self.revision)))) or None

    @property
    def progress(self) -> TrainingProgress:
        """Where in the training it lies."""
        return TrainingProgress(self.step, self.tokens, words=self.words, stage=self.stage, run=self.run)


class LeftOut(NamedTuple):
    """What ``all`` of a series leaves out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Series:
    """The checkpoints of a model in the order of training, and what beside them is left out."""

    checkpoints: list[Checkpoint]
    left_out: list[LeftOut] = field(default_factory=list)


def in_order(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return all checkpoints of a model in the order of training, with the totals of each."""
    totals = totals_of([checkpoint.progress for checkpoint in checkpoints])
    found = [
        replace(checkpoint, total_step=total.step, total_tokens=total.tokens)
        for checkpoint, total in zip(checkpoints, totals, strict=True)
    ]
    return sorted(found, key=lambda found: (training_key(found.progress), natural(found.name), found.name))


def describe_left_out(left_out: Iterable[LeftOut]) -> str | None:
    """Return one line on what is left out, each with its reason; None for nothing."""
    named = [f"{name} ({reason})" for name, reason in left_out]
    return f"Left out: {some_of(named)}" if named else None


def warn_once(message: str, about: str) -> None:
    """Log a warning about a path or a repository, unless this process has: a sweep may look again."""
    if (message, about) not in _said:
        _said.add((message, about))
        logger.warning("%s", message)


def some_of(names: Sequence[str]) -> str:
    """Return the first names of a list, and the number of the others."""
    rest = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + rest
