"""Which checkpoints a folder on disk holds: folders and files in it, in folders of runs, in ``step1000/hf``."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.checkpoint_files import NO_MODEL, STATE_DICTS, holds_config, holds_weights, training_format
from lmsat_plugin.results.checkpoint_names import TrainingProgress, is_another_form, is_bare
from lmsat_plugin.results.origins import Naming
from lmsat_plugin.results.training_order import natural
from lmsat_plugin.series.checkpoint import Checkpoint, LeftOut, Series
from lmsat_plugin.series.trainer_states import believe_states

logger = logging.getLogger(__name__)

_DEEPEST = 3
_OPTIMISER = re.compile(r"optim(izer|iser)?s?([-_.].*)?", re.IGNORECASE)
_OPTIMISER_FILE = re.compile(r"optim", re.IGNORECASE)
_NO_CHECKPOINTS = re.compile(r"logs?|wandb|tensorboard|__pycache__", re.IGNORECASE)
_OF_A_PROCESS = re.compile(r"rank|shard|model_states|(^|[-_.])0\d$", re.IGNORECASE)
# Folders that hold checkpoints and say nothing of them.
_CONTAINER = re.compile(r"(checkpoint|ckpt|chkpt|model|weight|output|hf|huggingface|transformers)s?", re.IGNORECASE)
_IN_FRONT = ("hf", "huggingface", "transformers")
"""Of several folders in a checkpoint's, those that hold it for transformers."""
_NOT_YET = "no config.json: it is no checkpoint, or not yet"


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A checkpoint in a folder."""

    folder: Path
    """What is loaded: the folder that names the step, or one in it; or a file of training code that names it."""
    above: tuple[str, ...] = ()
    """The folders between the series' and the one that names the step."""
    name: str
    """The folder that names the step, with the one in it where several are loadable."""

    @property
    def path(self) -> str:
        return "/".join((*self.above, self.name))


@dataclass
class _Walk:
    """A walk through a series' folder."""

    naming: Naming
    left_out: list[LeftOut] = field(default_factory=list)

    def below(self, folder: Path, above: tuple[str, ...], levels: int) -> Iterator[_Found]:
        """Yield the checkpoints in a folder, ``levels`` deep."""
        for path in _folders(folder):
            inside = (*above, path.name)
            deeper = levels if _CONTAINER.fullmatch(path.name) else levels - 1
            states_one = self.naming.states_one(path.name)
            if holds_config(path):
                runs = [] if states_one or not deeper else self._steps_below(path, inside, deeper)
                yield from runs or [_Found(folder=path, above=above, name=path.name)]
                if runs:
                    self.left_out.append(LeftOut("/".join(inside), "the last model of a run, beside its checkpoints"))
            elif states_one and not _is_bare_run(path, self.naming):
                yield from self._in_one(path, above)
            elif _OPTIMISER.fullmatch(path.name) is None and deeper and len(inside) <= _DEEPEST:
                yield from self.below(path, inside, deeper)
        if not (holds_config(folder) or self.naming.states_one(folder.name)):
            yield from self._files(folder, above)

    def _files(self, folder: Path, above: tuple[str, ...]) -> Iterator[_Found]:
        """Yield the files in a run's folder that are checkpoints, such as ``epoch=1-step=2000.ckpt``."""
        named = {path.name for path in _folders(folder)}
        for path in sorted(
            (path for pattern in STATE_DICTS for path in folder.glob(pattern)), key=lambda path: path.name
        ):
            is_part = NO_MODEL.search(path.stem) or _OF_A_PROCESS.search(path.stem)
            if self.naming.states_one(path.stem) and not is_part and path.stem not in named and path.is_file():
                named.add(path.stem)
                yield _Found(folder=path, above=above, name=path.stem)

    def _steps_below(self, folder: Path, above: tuple[str, ...], levels: int) -> list[_Found]:
        """Return the checkpoints in the folder of a last model, if their names say that they are such."""
        beside = _Walk(self.naming)
        found = [each for each in beside.below(folder, above, levels) if holds_config(each.folder)]
        return found if any(self.naming.states_one(each.name) for each in found) else []

    def _in_one(self, folder: Path, above: tuple[str, ...]) -> Iterator[_Found]:
        """Yield what a folder holds that names a step and has no configuration: a form of it, or shards of training."""
        whole = [path for path in _folders(folder) if holds_config(path)]
        if any(self.naming.states_one(path.name) for path in whole):
            # Such as epoch_1/step_1000.
            yield from (_Found(folder=path, above=(*above, folder.name), name=path.name) for path in whole)
            return
        plain = [path for path in whole if not is_another_form(path.name)] or whole
        chosen = [path for path in plain if path.name.lower() in _IN_FRONT] or plain
        if len(chosen) == 1:
            yield _Found(folder=chosen[0], above=above, name=folder.name)
        elif chosen:
            yield from (_Found(folder=path, above=above, name=f"{folder.name}/{path.name}") for path in chosen)
        elif _holds_optimiser_alone(folder):
            self.left_out.append(LeftOut("/".join((*above, folder.name)), "optimiser states"))
        elif training_format(folder) is not None:
            yield _Found(folder=folder, above=above, name=folder.name)
        else:
            logger.info("%s has %s", folder, _NOT_YET)
            self.left_out.append(LeftOut("/".join((*above, folder.name)), _NOT_YET))


def find_in_folder(folder: Path, name: str | None, naming: Naming) -> Series:
    """Return the checkpoints in a folder, or the folder itself where it is one; in no order.

    ``name`` is what the series is called, by default as the folder. Raises `LmsatError` for a folder that cannot be
    read, and for one without a checkpoint.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a link keeps its own name
    if holds_config(folder) and _CONTAINER.fullmatch(folder.name) and naming.states_one(folder.parent.name):
        # It is step1000/hf itself.
        folder = folder.parent
    walk = _Walk(naming)
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        raise LmsatError(f"pretrained={folder} cannot be read ({error.strerror}): correct the path") from error
    found = list(walk.below(folder, (), _DEEPEST))
    states_one = naming.states_one(folder.name)
    if holds_config(folder) and not any(_is_of_series(each, naming) for each in found):
        # What lies in a checkpoint's folder are its parts, such as onnx/ and global_step500/.
        found = [] if states_one or not all(map(_is_whole, found)) else found
        found = found or [_Found(folder=folder, name=folder.name if states_one else "main")]
    elif holds_config(folder) and holds_weights(folder) and not states_one:
        # The Trainer leaves its last model beside its checkpoints.
        found.append(_Found(folder=folder, name="main"))
    elif states_one and not any(naming.states_one(each.name) for each in found):
        walk = _Walk(naming)
        found = list(walk._in_one(folder, ()))
    found = _without_links(_of_one_series(found, walk), folder, walk.left_out)
    if not found and training_format(folder) is not None:
        found = [_Found(folder=folder, name="main")]
    if not found:
        raise LmsatError(
            f"pretrained={folder}: neither it nor a folder in it has a config.json; "
            "give a folder of checkpoints that transformers has saved, or one of these"
        )
    alone = len(found) == 1 and not found[0].above and folder in (found[0].folder, found[0].folder.parent)
    model = folder.parent.name if alone and states_one else folder.name
    return Series(checkpoints=_checkpoints(found, name or model, naming), left_out=walk.left_out)


def _checkpoints(found: Sequence[_Found], model: str, naming: Naming) -> list[Checkpoint]:
    """Return checkpoints with the places in training that names and the Trainer's states say."""
    stated = _stated(found, naming)
    places = {each.folder: _middle(each, naming) for each in found}
    runs = _runs({place for place in places.values() if place is not None})
    progress = {}
    for each in found:
        own, place = stated[each.folder], places[each.folder]
        if place is not None:
            own = replace(own, run="-".join(dict.fromkeys([runs[place], *([own.run] if own.run else [])])))
        for above in reversed(each.above):
            there = naming.progress(above)
            own = replace(own, stage=own.stage or there.stage, run=own.run or there.run)
        progress[each.folder] = own
    progress = believe_states(progress, naming)
    of_name = Counter((places[each.folder], each.name) for each in found)
    checkpoints = []
    for each in found:
        place = places[each.folder]
        of_stage = any(naming.progress(above).stage for above in each.above)
        by_path = of_name[place, each.name] > 1 or of_stage
        below = each.path.removeprefix(f"{place}/") if place is not None else each.path
        checkpoints.append(
            Checkpoint(
                model=model,
                pretrained=str(each.folder),
                revision=below if by_path else each.name,
                within=place,
                folder=each.folder,
                **asdict(progress[each.folder]),
            )
        )
    return checkpoints


def _stated(found: Sequence[_Found], naming: Naming) -> dict[Path, TrainingProgress]:
    """Return what the names of checkpoints state, those of one folder read together."""
    groups: dict[tuple[str, ...], list[_Found]] = {}
    for each in found:
        groups.setdefault(each.above, []).append(each)
    stated = {}
    for group in groups.values():
        # Of step1000/ema the folder that names the step.
        names = {each.folder: each.name.partition("/")[0] for each in group}
        series = naming.series(names.values())
        for each in group:
            progress = series[names[each.folder]]
            if naming.pattern is not None and not progress.is_placed:
                progress = naming.progress(each.path)
            stated[each.folder] = progress
    return stated


def _middle(found: _Found, naming: Naming) -> str | None:
    """Return the folders above a checkpoint that are its run's; None where they are a stage's, or say nothing."""
    names = [name for name in found.above if not _CONTAINER.fullmatch(name)]
    names = [name for name in names if is_bare(name) or not naming.states_one(name)]
    names = [name for name in names if naming.progress(name).stage is None]
    return "/".join(names) or None


def _runs(places: set[str]) -> dict[str, str]:
    """Return the run that each folder of a run names: ``seed3``, or where others name that, too, its whole name."""
    stated = {place: Naming().progress(place.rpartition("/")[2]).run or place for place in places}
    times = Counter(stated.values())
    return {place: run if times[run] == 1 else place for place, run in stated.items()}


def _of_one_series(found: Sequence[_Found], walk: _Walk) -> list[_Found]:
    """Return what belongs to a series: no models without a place beside those with one, nor a run that has no name."""
    naming = walk.naming
    placed = {each.above for each in found if naming.states_one(each.name)}
    if not placed:
        return [each for each in found if not each.above] or list(found)
    kept = []
    for each in found:
        place = _middle(each, naming)
        if not each.above or (
            each.above in placed and (() not in placed or place is None or naming.progress(place).run)
        ):
            kept.append(each)
        elif each.above in placed:
            walk.left_out.append(LeftOut(each.path, "of another run than those beside its folder"))
    return kept


def _without_links(found: Sequence[_Found], series: Path, left_out: list[LeftOut]) -> list[_Found]:
    """Return each checkpoint once: under the path of its folder, and where all are links, the one with a number."""
    top = series.resolve()
    of_folder: dict[Path, list[_Found]] = {}
    for each in found:
        of_folder.setdefault(each.folder.resolve(), []).append(each)
    kept = []
    for folder, same in of_folder.items():

        def order(each: _Found, folder: Path = folder) -> tuple[object, ...]:
            is_link = folder != top / each.folder.relative_to(series)
            return is_link, re.search(r"\d", each.name) is None, len(each.above), natural(each.name)

        first, *others = sorted(same, key=order)
        kept.append(first)
        left_out += [LeftOut(each.path, f"a link to {first.path}") for each in others]
    return kept


def _is_whole(found: _Found) -> bool:
    return holds_config(found.folder)


def _is_of_series(found: _Found, naming: Naming) -> bool:
    return _is_whole(found) and naming.states_one(found.name)


def _is_bare_run(folder: Path, naming: Naming) -> bool:
    """Return whether a folder whose name is a number is a run's, and not a checkpoint's: steps are named in it."""
    if not is_bare(folder.name):
        return False
    inside = [path for path in _folders(folder) if naming.states_one(path.name)]
    return any(holds_config(path) or not is_bare(path.name) for path in inside)


def _holds_optimiser_alone(folder: Path) -> bool:
    """Return whether all the files of a folder, which has some, are the optimiser's."""
    try:
        names = [path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
        return bool(names) and all(_OPTIMISER_FILE.search(name) for name in names)
    except OSError:
        return False


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder that may hold checkpoints; none where it cannot be read."""
    found = []
    with suppress(OSError):
        found = [path for path in folder.iterdir() if not path.name.startswith(".") and _may_hold(path)]
    return sorted(found, key=lambda path: natural(path.name))


def _may_hold(path: Path) -> bool:
    try:
        # A link to where it lies would be walked in a circle.
        is_circle = path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())
        return path.is_dir() and not is_circle and not _NO_CHECKPOINTS.fullmatch(path.name)
    except (OSError, RuntimeError):
        return False
