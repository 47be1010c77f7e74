"""Find the checkpoints of a series: those in a repository of the Hub, or in a folder."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import read_file
from lmsat_plugin.model.checkpoint_files import local_folder
from lmsat_plugin.results.checkpoint_names import TrainingProgress, compile_pattern
from lmsat_plugin.results.json_values import as_integer
from lmsat_plugin.results.origins import Naming
from lmsat_plugin.sweeps.hub_series import find_on_hub
from lmsat_plugin.sweeps.series import Checkpoint, in_order

logger = logging.getLogger(__name__)

_CONFIGS = ("config.json", "adapter_config.json")


def find_checkpoints(
    pretrained: str,
    *,
    name: str | None = None,
    tokens_per_step: int | None = None,
    step_pattern: str | None = None,
    commits: bool = False,
) -> list[Checkpoint]:
    """Return all checkpoints of a series, in the order of training, those of an unknown step last.

    Args:
        pretrained: A folder of checkpoints, a checkpoint's folder, or a repository of the Hub: see `find_on_hub`.
        name: The name of the series; by default that of the folder or the repository.
        tokens_per_step: Tokens of an optimiser step, where neither names nor ``trainer_state.json`` state it.
        step_pattern: A regular expression with the groups ``step`` or ``tokens``, for names of your own.
        commits: Whether the commits of a repository's main branch are its checkpoints.

    Raises `LmsatError` if there is no such folder or repository, or no checkpoint in it, or if the Hub refuses.
    """
    naming = Naming(compile_pattern(step_pattern) if step_pattern else None, tokens_per_step)
    folder = local_folder(pretrained)
    if folder is not None and commits:
        raise LmsatError(f"revisions=commits: {pretrained} is a folder, which has no commits: leave 'commits' out")
    if folder is not None:
        return in_order(_in_folder(folder, name, naming))
    return find_on_hub(pretrained, naming, name=name, commits=commits).checkpoints


def _in_folder(folder: Path, name: str | None, naming: Naming) -> list[Checkpoint]:
    """Return the checkpoints in a folder, or the folder itself where it is one."""
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a link keeps its own name
    try:
        inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise LmsatError(f"pretrained={folder} cannot be read ({error.strerror}): correct the path") from error

    series = naming.series([path.name for path in inside])

    def checkpoint(path: Path, model: str, revision: str) -> Checkpoint:
        progress = asdict(_progress(path, series.get(path.name, naming.progress(path.name)), naming))
        return Checkpoint(model=model, pretrained=str(path), revision=revision, folder=path, **progress)

    found = []
    for path in inside:
        if _holds_config(path):
            found.append(checkpoint(path, name or folder.name, path.name))
        elif naming.states_one(path.name):
            logger.info("%s has no config.json: it is no checkpoint, or not yet", path)
    if not found and _holds_config(folder):
        if naming.states_one(folder.name):
            found = [checkpoint(folder, name or folder.parent.name, folder.name)]
        else:
            found = [checkpoint(folder, name or folder.name, "main")]
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


def _progress(folder: Path, named: TrainingProgress, naming: Naming) -> TrainingProgress:
    """Return what ``trainer_state.json`` and the folder's name say. The file is believed, but not over a pattern."""
    path = folder / "trainer_state.json"
    if not path.is_file():
        return named
    try:
        state = json.loads(read_file(path))
        step, tokens = (as_integer(state.get(key)) for key in ("global_step", "num_input_tokens_seen"))
        if step is None or step < 0:
            raise ValueError("its global_step is no number of steps")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        logger.warning("%s is ignored, since it cannot be read (%s)", path, first_sentence(error))
        return named
    if naming.pattern is not None and named.step is not None:
        step = named.step
    stated = Naming(naming.pattern).progress(folder.name).tokens
    counted = as_integer(step * naming.tokens_per_step) if naming.tokens_per_step else None
    return replace(named, step=step, tokens=tokens if tokens is not None and tokens > 0 else stated or counted)
