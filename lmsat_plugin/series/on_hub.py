"""Which checkpoints a repository of the Hub holds: its branches and tags, folders in it, or the commits of a branch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import repeat, starmap
from typing import Any

from huggingface_hub import constants

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.hub import HubCommit, list_commits, list_refs, list_tree
from lmsat_plugin.model.checkpoint_files import MODEL_CONFIGS
from lmsat_plugin.results.checkpoint_names import TrainingProgress, is_another_form
from lmsat_plugin.results.origins import Naming
from lmsat_plugin.series.checkpoint import ANOTHER_FORM, MAIN, NO_PLACE, Checkpoint, LeftOut, Series

HOLDS_FOLDERS = "holds the checkpoints as folders"
COMMITS = "commits"
"""The word by which ``revisions`` asks for the commits of a branch."""
# What checkpoints of other programs consist of: DeepSpeed, Megatron, torch.distributed, Lightning, nanotron.
_SHARD = re.compile(r"\.(pt|pth|bin|distcp|ckpt|safetensors)$")
_DEEPEST, _BRANCHES = 3, 2
_OF_A_MODEL = re.compile(r"\b(hf|model|weights)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Repository:
    """A repository, what it is called as a model, its branches and tags with their commits, and how to read names."""

    name: str
    model: str
    refs: Mapping[str, str]
    naming: Naming

    @property
    def branch(self) -> str:
        """Its first branch."""
        return next((name for name in MAIN if name in self.refs), next(iter(self.refs)))

    def checkpoint(self, revision: str, commit: str, progress: TrainingProgress, **others: Any) -> Checkpoint:
        """Return a checkpoint that lies in it."""
        found = Checkpoint(model=self.model, pretrained=self.name, revision=revision, commit=commit, **asdict(progress))
        return replace(found, **others)


def find_on_hub(repository: str, naming: Naming, *, name: str | None = None, commits: bool = False) -> Series:
    """Return the checkpoints of a repository in no order, by one request for its branches and tags.

    Where these state no place in training, another request lists the files of ``main``, in whose folders checkpoints
    may be. With ``commits`` the checkpoints are the commits of ``main``, whose titles state the step.

    Raises `LmsatError` if the repository is not there, is empty, is closed to the user, or cannot be asked for.
    """
    refs = list_refs(repository)
    if not refs:
        raise LmsatError(f"{repository} on the Hub is empty: give a repository that holds checkpoints")
    place = _Repository(name=repository, model=name or repository, refs=refs, naming=naming)
    if commits:
        return _in_commits(list_commits(repository, place.branch), place)
    stated = naming.series(refs)
    if not constants.HF_HUB_OFFLINE and not any(map(_is_placed, stated, stated.values(), repeat(naming))):
        for branch in dict.fromkeys([place.branch, *refs][:_BRANCHES]):
            if folders := _in_folders(list_tree(repository, refs[branch], branch), naming):
                return Series(checkpoints=_in_branch(folders, branch, place))
    return Series(checkpoints=[place.checkpoint(ref, commit, stated[ref]) for ref, commit in refs.items()])


def asks_for_commits(revisions: Iterable[str | int]) -> tuple[bool, list[str | int]]:
    """Return whether ``revisions`` asks for the commits of a branch, and which of them it selects."""
    items = list(revisions)
    parts = [str(item).split() for item in items]
    if not any(COMMITS in words for words in parts):
        return False, items
    rest = [" ".join(word for word in words if word != COMMITS) for words in parts]
    return True, [item for item in rest if item] or ["all"]


def _is_placed(name: str, progress: TrainingProgress, naming: Naming) -> bool:
    return progress.is_placed and (naming.pattern is not None or not is_another_form(name))


@dataclass(frozen=True, kw_only=True)
class _Folder:
    path: str
    within: str
    name: str
    """The part of the path that names the step."""
    progress: TrainingProgress


def _in_branch(folders: Sequence[_Folder], branch: str, place: _Repository) -> list[Checkpoint]:
    """Return the checkpoints in folders of a branch."""
    times = Counter(folder.name for folder in folders)
    found = [
        place.checkpoint(
            folder.name,
            place.refs[branch],
            folder.progress,
            subfolder=folder.path,
            within=(folder.within or None) if times[folder.name] > 1 else None,
            aside=ANOTHER_FORM if _is_copy(folder.path) and not all(_is_copy(each.path) for each in folders) else None,
        )
        for folder in folders
    ]
    # There for who names them.
    others = {name: NO_PLACE if name != branch else HOLDS_FOLDERS for name in place.refs if name not in times}
    return found + [
        place.checkpoint(name, place.refs[name], TrainingProgress(), aside=reason) for name, reason in others.items()
    ]


def _in_folders(files: Collection[str], naming: Naming) -> list[_Folder]:
    """Return the folders, up to three levels deep, that are checkpoints; none where the root is the one model."""
    holders = {path.rpartition("/")[0] for path in files if path.rpartition("/")[2] in MODEL_CONFIGS}
    whole = sorted(
        folder
        for folder in holders
        if folder and folder.count("/") < _DEEPEST and not any(above in holders for above in _above(folder))
    )
    # In a repository of one model, onnx/ has a configuration, too.
    folders = _named(whole, naming)
    if "" in holders:
        placed = [folder for folder in folders if _is_placed(folder.path, folder.progress, naming)]
        return placed if len(placed) > 1 else []
    if not whole or any(folder.progress.is_placed for folder in folders):
        others = {_named_by_step(path, naming) for path in files if _SHARD.search(path)} - {None}
        foreign = sorted(path for path in others if path and not _touches(path, whole))
        folders = _named([*whole, *foreign], naming)
    return [] if "model_index.json" in files else folders


def _is_copy(folder: str) -> bool:
    return any(map(is_another_form, folder.split("/")))


def _above(folder: str) -> list[str]:
    """Return the folders that a folder lies in, but the root."""
    parts = folder.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _touches(folder: str, others: Collection[str]) -> bool:
    return any(f"{other}/".startswith(f"{folder}/") or f"{folder}/".startswith(f"{other}/") for other in others)


def _named_by_step(path: str, naming: Naming) -> str | None:
    """Return the uppermost folder of a file that names a step."""
    above = _above(path)[:_DEEPEST]
    return next((folder for folder in above if naming.states_one(folder.rpartition("/")[2])), None)


def _named(paths: Sequence[str], naming: Naming) -> list[_Folder]:
    """Return folders with what their paths state: the step by one part of it, stage and run by any above."""
    split = {path: _split(path, naming) for path in paths}
    taken = Counter(parts for path, parts in split.items() if not _is_copy(path))
    # Two forms of one checkpoint, such as step1000/hf and step1000/fp16, have their own names.
    split = {
        path: (within, path.removeprefix(f"{within}/")) if _is_copy(path) or taken[within, name] > 1 else (within, name)
        for path, (within, name) in split.items()
    }
    stated = naming.series(split.keys() if naming.pattern else (name for _, name in split.values()))
    places = {within for within, _ in split.values()}
    folders = []
    for path, (within, name) in split.items():
        progress = stated[path if naming.pattern else name]
        if naming.pattern is None:
            above = [naming.progress(part) for part in reversed(within.split("/"))]
            stage = next((each.stage for each in above if each.stage), None)
            run = next((each.run for each in above if each.run), None)
            if len(places) > 1 and not (stage or run):
                run = within or None
            progress = replace(progress, stage=progress.stage or stage, run=progress.run or run)
        folders.append(_Folder(path=path, within=within, name=name, progress=progress))
    return folders


def _split(path: str, naming: Naming) -> tuple[str, str]:
    """Return the part of a path that names the step, and what is above it; what is below, such as ``hf``, goes."""
    parts = path.split("/")
    for tells in (naming.states_one, lambda part: re.search(r"\d", part)):
        if (place := next((n for n in reversed(range(len(parts))) if tells(parts[n])), None)) is not None:
            break
    else:
        place = len(parts) - 1
    return "/".join(parts[:place]), parts[place]


def _in_commits(commits: Sequence[HubCommit], place: _Repository) -> Series:
    """Return the commits whose titles state a place in training, one for each place."""
    names = {each.title: _title_as_name(each.title, place.naming) for each in commits}
    stated = place.naming.series(names.values())
    of_place: dict[TrainingProgress, list[HubCommit]] = {}
    left_out = {}
    for each in commits:
        progress = stated[names[each.title]]
        if progress.is_placed:
            of_place.setdefault(progress, []).append(each)
        else:
            left_out[each.commit[:8]] = f"its title, '{each.title}', {NO_PLACE}"
    if not of_place:
        raise LmsatError(
            f"{place.name}: of its {len(commits)} commits none states a step in its title: "
            "set step_pattern, or leave 'commits' out of revisions"
        )
    found = []
    for progress, group in of_place.items():
        # Of several that state one step: the newest that says that it holds the model.
        chosen = next((each for each in group if _OF_A_MODEL.search(each.title)), group[0])
        found.append(place.checkpoint(chosen.commit, chosen.commit, progress))
        left_out.update((each.commit[:8], f"is of the step of {chosen.commit[:8]}") for each in group if each != chosen)
    return Series(checkpoints=found, left_out=list(starmap(LeftOut, left_out.items())))


def _title_as_name(title: str, naming: Naming) -> str:
    return title if naming.pattern else re.sub(r"[\s:#-]+", "-", title.strip())
