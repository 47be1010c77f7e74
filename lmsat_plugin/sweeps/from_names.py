"""The sweep that names of models alone stand for: which tasks, which checkpoints, and where the results go."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.utils import validate_repo_id

from lmsat_plugin.files import kind_of, safe_name
from lmsat_plugin.hub import hub_errors
from lmsat_plugin.model.checkpoint_files import CONFIG_FILES, WEIGHT_FILES, holds_config, local_folder
from lmsat_plugin.results.origins import Naming
from lmsat_plugin.series.finding import find_checkpoints
from lmsat_plugin.sweeps.config import SweepConfig

DEFAULT_TASKS = ("lmsat_loss", "lmsat_anisotropy", "lmsat_head")
_REVISIONS = "log:20"
_PATTERN = re.compile(r"[-_.]*[{*?\[]")
"""Where a name that stands for several stops being theirs."""
_DEEPEST = 3
"""How many levels below a run its checkpoints may lie."""


def config_values(names: Sequence[str], *, name: str | None = None, watch: bool = False) -> dict[str, Any]:
    """Return the keys of the configuration that names of models stand for, as YAML would give them.

    The loss, the anisotropy and the head of 20 checkpoints evenly spaced on a log axis, on the built-in sample of text.
    With ``watch`` all checkpoints are taken, since the 20 would be others from look to look.

    Args:
        names: Folders, and repositories of the Hub.
        name: What the models are called in the results; several are runs of one model then.

    Raises `LmsatError` for a name that is neither a folder nor a possible name on the Hub, and for a folder without
    checkpoints, unless they are watched for.
    """
    # A trailing slash is what completion in a shell leaves.
    names = [each.rstrip("/") or "/" for each in names]
    folders = [_folder(each, watch=watch) for each in names]
    # In each form of a path, `runs/a` and `runs/a/../b` among them.
    runs = [folder and _run_of(Path(os.path.abspath(folder))) for folder in folders]  # noqa: PTH100
    models: list[dict[str, Any]] = [
        {
            "pretrained": each,
            **({"name": own} if name is None and run is not None and (own := _name_among(run, runs)) else {}),
            "revisions": "all" if watch else _REVISIONS,
        }
        for each, run in zip(names, runs, strict=True)
    ]
    if name is not None and len(names) > 1:
        # Runs of one model.
        models = [{**models[0], "pretrained": names}]
    fields = SweepConfig.model_fields
    [corpus] = fields["corpora"].default
    return {
        "models": models,
        "tasks": list(DEFAULT_TASKS),
        "output": str(_output(names, runs, name)),
        "corpora": corpus.corpus,
        "max_tokens": fields["max_tokens"].default,
    }


def _folder(name: str, *, watch: bool) -> Path | None:
    """Return the folder that a name stands for; None for a name on the Hub, and for a pattern of several."""
    if _PATTERN.search(name) and kind_of(Path(name)) is None:
        return None
    folder = local_folder(name)
    if folder is None:
        with hub_errors(name):
            validate_repo_id(name)
    elif not watch and not _may_hold_checkpoints(folder):
        # It says why there are none.
        find_checkpoints(name)
    return folder


def _may_hold_checkpoints(folder: Path) -> bool:
    """Return whether there is a configuration in the folder or a little below: a quick look, which reads no file."""
    return any(any(folder.glob(f"{'*/' * depth}{config}")) for depth in range(_DEEPEST + 1) for config in CONFIG_FILES)


def _name_among(run: Path, runs: Sequence[Path | None]) -> str | None:
    """Return a longer name for a run whose folder's name another run has, too: the end of its path."""
    others = [other.parts for other in runs if other is not None and other != run]
    for length in range(1, len(run.parts)):
        if not any(other[-length:] == run.parts[-length:] for other in others):
            return "/".join(run.parts[-length:]) if length > 1 else None
    return None


def _output(names: Sequence[str], runs: Sequence[Path | None], name: str | None) -> Path:
    """Return where the results go: beside the runs that are folders, or in ``results`` of the working folder.

    They never go into a checkpoint's own folder.
    """
    folders = {run for run in runs if run is not None}
    beside = {run.parent for run in folders}
    if len(beside) != 1 or None in runs:
        one = name or (_PATTERN.split(names[0].rpartition("/")[2])[0] if len(names) == 1 else "")
        inside = Path("results", *([safe_name(one)] if one else []))
        return _relative(_outside_checkpoints(Path.cwd()) / inside)
    output = _outside_checkpoints(beside.pop()) / (f"{folders.pop().name}-results" if len(folders) == 1 else "results")
    return output if Path(names[0]).is_absolute() or names[0].startswith("~") else _relative(output)


def _run_of(folder: Path) -> Path:
    """Return the folder of the run: the parent of one that is itself a checkpoint, such as ``run/step1000/hf``."""
    names = Naming()
    for checkpoint in (folder, folder.parent):
        if holds_config(folder) and names.states_one(checkpoint.name):
            return checkpoint.parent
    return folder


def _outside_checkpoints(folder: Path) -> Path:
    """Return the nearest folder around one, or itself, that is no checkpoint."""
    while holds_config(folder) and any(any(folder.glob(pattern)) for pattern in WEIGHT_FILES):
        folder = folder.parent
    return folder


def _relative(path: Path) -> Path:
    return Path(os.path.relpath(path))
