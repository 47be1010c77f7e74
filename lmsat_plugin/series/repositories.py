"""Series made of several repositories or folders: braces and globs of names, their common name, the run of each."""

from __future__ import annotations

import glob
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.hub import list_repositories
from lmsat_plugin.model.checkpoint_files import local_folder
from lmsat_plugin.results.checkpoint_names import TrainingProgress, without_place
from lmsat_plugin.results.origins import Naming
from lmsat_plugin.results.training_order import natural
from lmsat_plugin.series.checkpoint import MAIN, Checkpoint, LeftOut, Series, warn_once

_BRACE = re.compile(r"\{([^{}]*)\}")
_COUNTED = re.compile(r"(\d+)\.\.(\d+)", re.ASCII)
_GLOB = re.compile(r"[*?\[]")
_MOST = 10_000


def expand(pretrained: str | Sequence[str]) -> list[str]:
    """Return the repositories and folders that ``pretrained`` names.

    Braces count, ``seed{1..9}``, or list, ``{a,b}``; a glob takes folders, or the repositories of an organisation, for
    which the Hub is asked once. A name that is a folder is itself. Raises `LmsatError` where nothing comes of it.
    """
    given = [pretrained] if isinstance(pretrained, str) else list(pretrained)
    if not given:
        raise LmsatError("pretrained=[] names no model: name some")
    names = [name for text in given for name in ([text] if _is_there(text) else _of_pattern(text))]
    return list(dict.fromkeys(names))


def _of_pattern(pattern: str) -> list[str]:
    return [name for text in _without_braces(pattern) for name in (_matches(text) if _GLOB.search(text) else [text])]


def _without_braces(pattern: str) -> list[str]:
    """Return the names that a pattern with braces stands for. Raises `LmsatError` if there are none, or very many."""
    pieces = _BRACE.split(pattern)
    choices = [_choices(piece, pattern) if n % 2 else [piece] for n, piece in enumerate(pieces)]
    count = math.prod(map(len, choices))
    if count > _MOST:
        raise LmsatError(f"pretrained={pattern} stands for {count:,} names: write braces that stand for fewer")
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _choices(inside: str, pattern: str) -> Sequence[str]:
    """Return what stands between braces: numbers in a row, with zeros before them as given, or a list of names."""
    if match := _COUNTED.fullmatch(inside):
        low, high = int(match[1]), int(match[2])
        width = len(match[1]) if match[1].startswith("0") else 0
        if 0 <= high - low < _MOST:
            return [f"{number:0{width}}" for number in range(low, high + 1)]
        if low <= high:
            raise LmsatError(f"pretrained={pattern} stands for more than {_MOST:,} names: write a shorter range")
    elif "," in inside and all(part.strip() for part in inside.split(",")):
        return [part.strip() for part in inside.split(",")]
    raise LmsatError(f"pretrained={pattern}: {{{inside}}} stands for no name: write {{1..9}} or {{a,b}}")


def _matches(pattern: str) -> list[str]:
    """Return the folders, or else the repositories of the Hub, whose names match a glob."""
    path = Path(pattern).expanduser()
    there = glob.glob(str(path))  # noqa: PTH207 - of a path that may be absolute
    folders = sorted((name for name in there if Path(name).is_dir()), key=natural)
    if folders:
        return folders
    organisation, slash, name = pattern.partition("/")
    is_local = path.is_absolute() or pattern.startswith((".", "~")) or Path(organisation).is_dir()
    if is_local or not slash or "/" in name or _GLOB.search(organisation):
        raise LmsatError(f"pretrained={pattern}: no folder has such a name; correct it, or name an organisation's")
    # The Hub finds parts of names.
    letters = max(re.split(r"\[[^\]]*\]?|[*?]", name), key=len).strip("-_.")
    found = [each for each in list_repositories(organisation, letters) if fnmatchcase(each, pattern)]
    if not found:
        raise LmsatError(f"pretrained={pattern}: the Hub has no repository of such a name, nor is there such a folder")
    return sorted(found, key=natural)


def find_in_several(
    names: Sequence[str], find: Callable[[str], Series], *, model: str | None, naming: Naming
) -> Series:
    """Return the checkpoints of several repositories or folders, as of one model; in no order.

    ``find`` returns the series of one. One that cannot be had is left out with a warning; `LmsatError` if none can.
    """
    parts: dict[str, Series] = {}
    left_out = []
    for name in names:
        try:
            if any(map(_is_there, names)) and not _is_there(name):
                raise LmsatError(f"pretrained={name}: there is no such folder; correct the path")
            parts[name] = find(name)
        except PassingError:
            raise
        except LmsatError as error:
            if len(names) == 1:
                raise
            warn_once(f"{error} (the others are taken without it)", name)
            left_out.append(LeftOut(name, "it cannot be had"))
    if not parts:
        raise LmsatError(f"none of the {len(names)} models can be had, such as {names[0]}: correct pretrained")
    model = model or _common_name(list(parts))
    own = _own_names(list(parts))
    named = {name: naming.progress(_last_part(name)) for name in parts}
    checkpoints: dict[str, list[Checkpoint]] = {}
    for name, series in parts.items():
        is_one = named[name].is_placed and not any(each.progress.is_placed for each in series.checkpoints)
        checkpoints[name] = [_only_one(series, own[name], named[name])] if is_one else series.checkpoints
        left_out += [LeftOut(f"{own[name]}/{other}", reason) for other, reason in series.left_out]
    runs = _runs(checkpoints, named, own)
    times = Counter(each.revision for several in checkpoints.values() for each in several)
    merged = []
    for name, several in checkpoints.items():
        is_shared = any(times[each.revision] > 1 for each in several)
        for each in several:
            places = [part for part in (own[name] if is_shared else None, each.within) if part]
            stated = dict.fromkeys(part for part in (runs[name], each.run) if part)
            merged.append(
                replace(
                    each,
                    model=model,
                    within="/".join(places) or None,
                    run="-".join(stated) or None,
                    stage=each.stage or named[name].stage,
                )
            )
    return Series(checkpoints=merged, left_out=left_out)


def _runs(
    checkpoints: Mapping[str, Sequence[Checkpoint]], named: Mapping[str, TrainingProgress], own: Mapping[str, str]
) -> dict[str, str | None]:
    """Return the run of each part: as its name states it, or the whole name where that does not tell them apart."""
    runs = {name: named[name].run for name in checkpoints}
    # Several of a folder's own checkpoints, such as step1000 and its copy in another form, are of one run.
    series = {name: several for name, several in checkpoints.items() if several[0].revision != own[name]}
    places = Counter(
        (runs[name], place)
        for name, several in series.items()
        for place in {replace(each.progress, tokens=None) for each in several}
    )
    return {**own} if max(places.values(), default=0) > 1 else runs


def _only_one(series: Series, own: str, stated: TrainingProgress) -> Checkpoint:
    """Return the one checkpoint of a repository or a folder, under its own name and with what that states."""
    mains = [each for each in series.checkpoints if each.revision in MAIN]
    counts = {key: getattr(stated, key) for key in ("step", "tokens", "words", "stage", "run")}
    return replace((mains or series.checkpoints)[0], revision=own, **counts)


def _common_name(names: Sequence[str]) -> str:
    """Return the name of several without their runs and steps. Raises `LmsatError` if they have nothing in common."""
    bare = {_without_place(name) for name in names}
    if len(bare) == 1:
        return bare.pop()
    split = [re.split(r"(?<=[-_/])", f"{name}/") for name in sorted(bare)]
    alike = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*split, strict=False))
    common = "".join(parts[0] for parts in alike).rstrip("-_./")
    folders = {Path(name).expanduser().absolute().parent.name for name in names if _is_there(name)}
    if not common and len(folders) == 1 and all(map(_is_there, names)):
        return folders.pop()
    if not common:
        raise LmsatError(f"{names[0]} and {names[-1]} have no name in common: give one with `name`")
    return common


def _without_place(name: str) -> str:
    """Return a name without its run and step: of a repository with its organisation, of a folder the last part."""
    last = _last_part(name)
    bare = without_place(last)
    if _is_there(name):
        return bare or Path(name).expanduser().absolute().parent.name
    return name.removesuffix(last) + (bare or last)


def _own_names(names: Sequence[str]) -> dict[str, str]:
    """Return the last part of each name, or the whole one where others have that, too."""
    times = Counter(map(_last_part, names))
    return {name: _last_part(name) if times[_last_part(name)] == 1 else name.strip("/") for name in names}


def _last_part(name: str) -> str:
    return Path(name).name or name


def _is_there(name: str) -> bool:
    try:
        return local_folder(name) is not None
    except LmsatError:
        return False
