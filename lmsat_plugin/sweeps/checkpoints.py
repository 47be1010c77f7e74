"""The checkpoints of a series: those that a repository of the Hub or a folder holds."""

from __future__ import annotations

import json
import logging
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.hub import list_refs
from lmsat_plugin.model.checkpoint_files import local_folder
from lmsat_plugin.results.checkpoint_names import Progress, compile_pattern, parse_progress

logger = logging.getLogger(__name__)

_CONFIGS = ("config.json", "adapter_config.json")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a series."""

    model: str
    """What the series is called."""
    pretrained: str
    """The repository of the Hub, or the checkpoint's own folder."""
    revision: str
    """The branch or tag, or the folder's name."""
    step: int | None = None
    tokens: int | None = None
    commit: str | None = None
    """What the revision stands for; None for a folder."""
    folder: Path | None = None
    """Where it lies; None for one of the Hub."""


def find_checkpoints(
    pretrained: str,
    *,
    name: str | None = None,
    tokens_per_step: int | None = None,
    step_pattern: str | None = None,
) -> list[Checkpoint]:
    """Return all checkpoints of a series, in the order of training, those of an unknown step last.

    Args:
        pretrained: A folder of checkpoints, a checkpoint's folder, or a repository of the Hub, whose branches and
            tags are the checkpoints.
        name: What to call the series, instead of the folder or the repository.
        tokens_per_step: Tokens of an optimiser step, where neither names nor ``trainer_state.json`` say.
        step_pattern: A regular expression with the groups ``step`` or ``tokens``, for names of one's own.

    Raises:
        LmsatError: If there is no such folder or repository, or no checkpoint in it, or if the Hub refuses.
    """
    pattern = compile_pattern(step_pattern) if step_pattern else None
    folder = local_folder(pretrained)
    if folder is not None:
        return sorted(_in_folder(folder, name, pattern, tokens_per_step), key=_order)
    found = []
    for revision, commit in list_refs(pretrained).items():
        progress = parse_progress(revision, pattern, tokens_per_step)
        found.append(
            Checkpoint(name or pretrained, pretrained, revision, progress.step, progress.tokens, commit)
        )
    if not found:
        raise LmsatError(f"{pretrained} on the Hub is empty: give a repository that holds checkpoints")
    return sorted(found, key=_order)


def _order(checkpoint: Checkpoint) -> tuple[Any, ...]:
    step, tokens = checkpoint.step, checkpoint.tokens
    # Split at its numbers, a name alternates between text and digits: 9 comes before 10.
    parts = re.split(r"(\d+)", checkpoint.revision)
    natural = [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
    return (step is None, step or 0, tokens is None, tokens or 0, natural, checkpoint.revision)


def _in_folder(
    folder: Path, name: str | None, pattern: re.Pattern[str] | None, tokens_per_step: int | None
) -> list[Checkpoint]:
    """Return the checkpoints in a folder, or the folder itself where it is one."""
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a link keeps its own name
    try:
        inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise LmsatError(
            f"pretrained={folder} cannot be read ({error.strerror}): correct the path"
        ) from error

    def checkpoint(path: Path, model: str, revision: str) -> Checkpoint:
        progress = _progress(path, pattern, tokens_per_step)
        return Checkpoint(model, str(path), revision, progress.step, progress.tokens, folder=path)

    found = []
    for path in inside:
        if _holds_config(path):
            found.append(checkpoint(path, name or folder.name, path.name))
        elif parse_progress(path.name, pattern) != Progress():
            logger.info("%s has no config.json: it is no checkpoint, or not yet", path)
    if not found and _holds_config(folder):
        if parse_progress(folder.name, pattern) == Progress():
            found = [checkpoint(folder, name or folder.name, "main")]
        else:
            found = [checkpoint(folder, name or folder.parent.name, folder.name)]
    if not found:
        raise LmsatError(
            f"pretrained={folder}: neither it nor a folder in it has a config.json; "
            "give a folder of checkpoints that transformers has saved, or one of these"
        )
    return found


def _holds_config(folder: Path) -> bool:
    with suppress(OSError):
        return any((folder / name).is_file() for name in _CONFIGS)
    return False


def _progress(folder: Path, pattern: re.Pattern[str] | None, tokens_per_step: int | None) -> Progress:
    """Return what a folder's name and its ``trainer_state.json`` say. The latter wins, but over a pattern."""
    named = parse_progress(folder.name, pattern, tokens_per_step)
    path = folder / "trainer_state.json"
    if not path.is_file():
        return named
    try:
        state = json.loads(path.read_text("utf-8"))
        step, tokens = int(state["global_step"]), int(state.get("num_input_tokens_seen") or 0)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s is ignored, since it cannot be read (%s)", path, first_sentence(error))
        return named
    if pattern is not None and named.step is not None:
        step = named.step
    said = parse_progress(folder.name, pattern).tokens
    return Progress(step, tokens or said or (step * tokens_per_step if tokens_per_step else None))
