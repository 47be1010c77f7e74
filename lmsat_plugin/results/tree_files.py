"""Which files of a tree may be result files, with the size and the times that tell whether one has changed."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import FileStamp, kind_of, stamp_file, stamp_of_status
from lmsat_plugin.results.other_tools.olmes import ALL_TASKS
from lmsat_plugin.results.other_tools.tables import SUFFIXES, may_hold_results

_ENDINGS = (".json", ALL_TASKS, *SUFFIXES)
_DETAILS = "details_"
"""The beginning of the names of lighteval's tables of samples."""
# What OLMES writes beside `ALL_TASKS`, which has all of it.
_OF_OLMES = re.compile(r"metrics\.json|task-\d+-.*-metrics\.json")

logger = logging.getLogger(__name__)

# JSON files that lie beside results, some of them large.
_NO_RESULTS = {
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"),
    *("special_tokens_map.json", "added_tokens.json", "trainer_state.json"),
    *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
}


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file of a tree as it was found."""

    path: str
    name: str
    """The path within the tree, with slashes."""
    stamp: FileStamp


def _warn_of_skipped(folder: Path, reason: str) -> None:
    logger.warning("%s is skipped (%s): correct its rights", folder, reason)


def tree_files(root: Path, on_skipped: Callable[[Path, str], None] = _warn_of_skipped) -> list[TreeFile]:
    """Return the files that may be results, sorted by path. Links are followed; no folder is entered twice.

    ``on_skipped`` is called for each folder that cannot be read, with the reason; by default it warns.

    Raises `LmsatError` where there is no folder and no file.
    """
    kind = kind_of(root)
    if kind == "file":
        return [TreeFile(str(root), root.name, stamp_file(root))]
    if kind != "folder":
        raise LmsatError(f"{root} is neither a folder nor a file: give a folder with lm-eval's result files")
    found: list[TreeFile] = []
    entered: set[tuple[int, int]] = set()
    folders: list[tuple[Path | os.DirEntry[str], str]] = [(root, "")]
    while folders:
        folder, prefix = folders.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                entries = [entry for entry in scan if not entry.name.startswith(".")]
        except OSError as error:
            on_skipped(Path(folder), error.strerror or str(error))
            continue
        if any(entry.name == ALL_TASKS for entry in entries):
            entries = [entry for entry in entries if not _OF_OLMES.fullmatch(entry.name)]
        below = sorted((entry for entry in entries if _is_folder(entry)), key=lambda entry: entry.name, reverse=True)
        folders += [(entry, f"{prefix}{entry.name}/") for entry in below]
        found += filter(None, (_candidate(entry, prefix) for entry in entries))
    return sorted(found, key=lambda file: file.path)


def files_of_trees(roots: Sequence[Path]) -> tuple[Path, list[TreeFile]]:
    """Return the folder that holds several trees, and their files, each once, with names from that folder on.

    Of one tree it is the tree itself. Raises `LmsatError` as `tree_files`.
    """
    if len(roots) == 1:
        return roots[0], tree_files(roots[0])
    places = [Path(os.path.abspath(root)) for root in roots]  # noqa: PTH100 - a link stays a name
    above = Path(os.path.commonpath([place if kind_of(place) == "folder" else place.parent for place in places]))
    found: dict[str, TreeFile] = {}
    for place in places:
        for file in tree_files(place):
            found.setdefault(file.path, replace(file, name=Path(file.path).relative_to(above).as_posix()))
    return above, sorted(found.values(), key=lambda file: file.path)


def _candidate(entry: os.DirEntry[str], prefix: str) -> TreeFile | None:
    """Return a file that may be a result; None for any other."""
    if not entry.name.endswith(_ENDINGS) or entry.name in _NO_RESULTS or entry.name.startswith(_DETAILS):
        return None
    # A table of something else, such as a report's, is no part of what was read.
    if entry.name.endswith(SUFFIXES) and not may_hold_results(Path(entry.path)):
        return None
    try:
        return TreeFile(entry.path, prefix + entry.name, stamp_of_status(entry.stat())) if entry.is_file() else None
    except OSError:
        # It was removed, or is a link that leads nowhere.
        return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
