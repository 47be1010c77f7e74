"""Find the checkpoints of a series: those in repositories of the Hub, or in folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from socket import EAI_AGAIN, EAI_NONAME
from types import MappingProxyType
from typing import Any

from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.files import similar_path
from lmsat_plugin.model.checkpoint_files import local_folder
from lmsat_plugin.passing import causes, patiently
from lmsat_plugin.results.checkpoint_names import compile_pattern, is_another_form, parse_progress
from lmsat_plugin.results.origins import Naming
from lmsat_plugin.series.checkpoint import (
    ANOTHER_FORM,
    MAIN,
    NO_CHECKPOINT,
    NO_PLACE,
    Checkpoint,
    LeftOut,
    Series,
    in_order,
    some_of,
    warn_once,
)
from lmsat_plugin.series.in_folders import find_in_folder
from lmsat_plugin.series.on_hub import find_on_hub
from lmsat_plugin.series.repositories import expand, find_in_several
from lmsat_plugin.series.same_place import set_aside

Stated = Mapping[str, Mapping[str, Any]]
"""From the names of checkpoints to what a user states of them: step, tokens, words, stage, run."""
_NOTHING: Stated = MappingProxyType({})
_NO_ADDRESS = tuple(f"[Errno {number}]" for number in (EAI_NONAME, EAI_AGAIN))
"""What an error says where a server's name leads nowhere; the HTTP library keeps the text alone."""
_TRIES_WITHOUT_HUB = 2
"""How often a repository is asked for where the Hub's address is not known."""


def find_checkpoints(
    pretrained: str | Sequence[str],
    *,
    name: str | None = None,
    tokens_per_step: int | None = None,
    step_pattern: str | None = None,
    commits: bool = False,
) -> list[Checkpoint]:
    """Return all checkpoints of a series, in the order of training: see `find_series`."""
    naming: dict[str, Any] = {"tokens_per_step": tokens_per_step, "step_pattern": step_pattern}
    return find_series(pretrained, name=name, commits=commits, **naming).checkpoints


def find_series(
    pretrained: str | Sequence[str],
    *,
    name: str | None = None,
    tokens_per_step: int | None = None,
    step_pattern: str | None = None,
    stated: Stated = _NOTHING,
    commits: bool = False,
    wait: bool = False,
) -> Series:
    """Return the checkpoints of a series, in the order of training, those of an unknown step last.

    Args:
        pretrained: A folder of checkpoints, a checkpoint's folder, or a repository of the Hub (see `find_on_hub`); or
            several of these, as a list, with braces or as a glob, which are one model.
        name: The name of the series; by default that of the folder or the repository.
        tokens_per_step: Tokens of an optimiser step, where neither names nor ``trainer_state.json`` state it.
        step_pattern: A regular expression with the groups ``step`` or ``tokens``, for names of your own.
        stated: Places in training that are believed more than names.
        commits: Whether the commits of a repository's main branch are its checkpoints.
        wait: Wait out what of the Hub's trouble passes.

    Raises `LmsatError` if there is no such folder or repository, or no checkpoint in it, or if the Hub refuses.
    """
    naming = Naming(compile_pattern(step_pattern) if step_pattern else None, tokens_per_step)

    def of_one(part: str) -> Series:
        def find() -> Series:
            try:
                return _of_one(part, name, naming, commits=commits)
            except PassingError as error:
                if not any(stated in str(each) for each in causes(error) for stated in _NO_ADDRESS):
                    raise
                without = PassingError(
                    f"there is no folder {part}, and the Hub cannot be reached to ask for a repository of this name: "
                    "correct the name, check the connection, or set HF_HUB_OFFLINE=1 to use what is cached",
                    source=error.source,
                )
                # The name may be wrong as well as the network.
                without.tries = _TRIES_WITHOUT_HUB
                raise without from error

        # A folder of a similar name was meant, most likely: waiting for the Hub would hide that.
        return patiently(find) if wait and similar_path(Path(part)) is None else find()

    names = patiently(partial(expand, pretrained)) if wait else expand(pretrained)
    if names == [pretrained]:
        series = of_one(names[0])
        series = replace(series, checkpoints=_with_run(series.checkpoints, names[0]))
    else:
        series = find_in_several(names, of_one, model=name, naming=naming)
    checkpoints = set_aside([_as_stated(each, stated, naming) for each in series.checkpoints])
    return Series(
        checkpoints=in_order(checkpoints), left_out=[*series.left_out, *_left_out(checkpoints, naming, step_pattern)]
    )


def _of_one(pretrained: str, name: str | None, naming: Naming, *, commits: bool) -> Series:
    """Return the checkpoints of one folder or repository, in no order."""
    folder = local_folder(pretrained)
    if folder is None:
        return find_on_hub(pretrained, naming, name=name, commits=commits)
    if commits:
        raise LmsatError(f"revisions=commits: {pretrained} is a folder, which has no commits: leave 'commits' out")
    return find_in_folder(folder, name, naming)


def _with_run(checkpoints: Sequence[Checkpoint], pretrained: str) -> list[Checkpoint]:
    """Return checkpoints with the run that the name of their repository or folder states, where theirs state none."""
    run = parse_progress(pretrained.rstrip("/")[-200:]).run
    if run is None or any(each.run for each in checkpoints):
        return list(checkpoints)
    return [replace(each, run=run) for each in checkpoints]


def _as_stated(checkpoint: Checkpoint, stated: Stated, naming: Naming) -> Checkpoint:
    """Return a checkpoint with what a user states of it."""
    own = dict(stated.get(checkpoint.name) or stated.get(checkpoint.revision) or {})
    if not own:
        return checkpoint
    if "step" in own and "tokens" not in own and naming.tokens_per_step is not None:
        own["tokens"] = own["step"] * naming.tokens_per_step
    return replace(checkpoint, aside=None, **own)


def _left_out(checkpoints: Sequence[Checkpoint], naming: Naming, step_pattern: str | None) -> list[LeftOut]:
    """Return what ``all`` leaves out, and warn of names that a pattern does not match, or that say nothing."""
    left_out = [LeftOut(each.name, each.aside) for each in checkpoints if each.aside is not None]
    unplaced = [each for each in checkpoints if not each.progress.is_placed and each.aside is None]
    names = [each.name for each in checkpoints if not each.progress.is_placed and not each.is_copy]
    if len(unplaced) < len(checkpoints):
        if naming.pattern is not None and names:
            unmatched = f"{len(names)} names of {checkpoints[0].model}: {some_of(names)}"
            message = f"step_pattern='{step_pattern}' does not match {unmatched}; these are left out"
            warn_once(message, checkpoints[0].pretrained)
        return [*left_out, *(LeftOut(each.name, _reason(each, naming)) for each in unplaced)]
    silent = [each.name for each in unplaced if not re.search(r"\d", each.revision) and not each.is_copy]
    if len(silent) > 1 and len(silent) == len([each for each in unplaced if not each.is_copy]):
        warn_once(names_say_nothing(silent, checkpoints[0].model), checkpoints[0].pretrained)
    return left_out


def names_say_nothing(names: Sequence[str], model: str) -> str:
    """Return what to write in a configuration for checkpoints whose names state no place in training."""
    return (
        f"the names of {model}'s checkpoints, such as {names[0]}, state no step: write "
        f"`revisions: [{{name: {names[0]}, step: 1000}}, {{name: {names[-1]}, step: 2000}}]` in a configuration, "
        "with the steps that are right, or set step_pattern"
    )


def _reason(checkpoint: Checkpoint, naming: Naming) -> str:
    if checkpoint.revision in MAIN:
        return NO_CHECKPOINT
    if is_another_form(checkpoint.revision):
        return ANOTHER_FORM
    return "step_pattern does not match it" if naming.pattern is not None else NO_PLACE
