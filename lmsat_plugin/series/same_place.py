"""Which of several checkpoints of one step a series takes: no copies in another form, none of different weights."""

from __future__ import annotations

import filecmp
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.hub import list_files
from lmsat_plugin.model.checkpoint_files import weight_files
from lmsat_plugin.passing import patiently
from lmsat_plugin.results.checkpoint_names import is_another_form, parse_progress, shape_of
from lmsat_plugin.results.training_order import natural, stage_order
from lmsat_plugin.series.checkpoint import ANOTHER_FORM, NO_CHECKPOINT, Checkpoint, some_of, warn_once

_Files = tuple[tuple[Path, int, int], ...]
_A_SERIES = 3
"""So many names that differ in their numbers alone are an index."""


def set_aside(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return the checkpoints of a series; those that only their names are to select say why.

    Of one run, stage and step a copy in another form is set aside where the plain one is there; of equal weights all
    but the first; and of different weights all, which a warning names: nobody knows which one belongs to the run.
    Where names are an index, such as ``ckpt_012``, the main branch and copies are set aside.
    """
    of_place: dict[Any, list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        if checkpoint.progress.is_placed and checkpoint.aside is None:
            of_place.setdefault(_place(checkpoint), []).append(checkpoint)
    reasons: dict[str, str] = {}
    if not of_place and _have_an_index([each.revision for each in checkpoints if each.aside is None]):
        reasons.update((each.name, NO_CHECKPOINT) for each in checkpoints if each.is_copy)
    unlike: list[str] = []
    for several in of_place.values():
        if len(several) == 1:
            continue
        several.sort(key=lambda each: (is_another_form(each.revision), natural(each.name)))
        plain = [each for each in several if not is_another_form(each.revision)]
        if plain:
            reasons.update((each.name, ANOTHER_FORM) for each in several if each not in plain)
        by_name = [each for each in plain if parse_progress(each.revision).is_placed]
        if by_name:
            # The last model beside checkpoint-500 may be saved in another type.
            reasons.update((each.name, f"of the step of {by_name[0].name}") for each in plain if each not in by_name)
        first, *others = by_name or plain or several
        if all(_have_equal_weights(first, each) for each in others):
            reasons.update((each.name, f"the weights of {first.name}") for each in others)
        else:
            unlike.append(" and ".join(each.name for each in (first, *others)))
            reasons.update((each.name, "another one of its step has other weights") for each in (first, *others))
    if unlike:
        warn_once(
            f"{checkpoints[0].model} has checkpoints of one step with different weights, which are left out unless "
            f"`revisions` names them: {some_of(unlike)}",
            checkpoints[0].pretrained,
        )
    return [replace(each, aside=each.aside or reasons.get(each.name)) for each in checkpoints]


def _have_an_index(names: Sequence[str]) -> bool:
    # Amber's ckpt_000 to ckpt_358; v1.0 and v1.1 are versions.
    alike = Counter(shape for name in names if "." not in name and (shape := shape_of(name)) is not None)
    return max(alike.values(), default=0) >= _A_SERIES


def _place(checkpoint: Checkpoint) -> tuple[Any, ...]:
    amounts = ((name, getattr(checkpoint, name)) for name in ("step", "tokens", "words"))
    return checkpoint.run, stage_order(checkpoint.stage), next(pair for pair in amounts if pair[1] is not None)


def _have_equal_weights(one: Checkpoint, other: Checkpoint) -> bool:
    if one.folder is not None and other.folder is not None:
        mine, its = (_files(folder) for folder in (one.folder, other.folder))
        return [(path.name, size) for path, size, _ in mine] == [(path.name, size) for path, size, _ in its] and (
            _are_equal(mine, its)
        )
    if (one.pretrained, one.content) == (other.pretrained, other.content):
        return True
    hashes = [_hashes(each) for each in (one, other)]
    return bool(hashes[0]) and hashes[0] == hashes[1]


def _hashes(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the digests of a checkpoint's weights on the Hub; none where it cannot say."""
    try:
        files = patiently(partial(list_files, checkpoint.pretrained, str(checkpoint.commit), checkpoint.revision))
    except PassingError:
        raise
    except LmsatError:
        return {}
    prefix = f"{checkpoint.subfolder}/" if checkpoint.subfolder else ""
    stated = {name: file.digest for name, file in files.items() if name.startswith(prefix)}
    names = {name.removeprefix(prefix): digest for name, digest in stated.items() if digest is not None}
    return {name: names[name] for name in weight_files(dict.fromkeys(names, 0))}


def _files(folder: Path) -> _Files:
    """Return the files of weights in a folder, each with its size and time; none where they cannot be read."""
    try:
        seen = {path.name: path.stat() for path in folder.iterdir() if path.is_file()}
    except OSError:
        return ()
    names = sorted(weight_files({name: stat.st_size for name, stat in seen.items()}))
    return tuple((folder / name, seen[name].st_size, seen[name].st_mtime_ns) for name in names)


@lru_cache(maxsize=256)
def _are_equal(one: _Files, other: _Files) -> bool:
    """Return whether files of equal sizes have the same content; reading ends at the first difference."""
    try:
        return bool(one) and all(filecmp.cmp(a[0], b[0], shallow=False) for a, b in zip(one, other, strict=True))
    except OSError:
        return False
