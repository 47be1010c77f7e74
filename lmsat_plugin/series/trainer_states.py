"""Which ``trainer_state.json`` are believed: those whose steps and tokens grow as the checkpoints' names do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from lmsat_plugin.errors import first_sentence
from lmsat_plugin.files import read_file
from lmsat_plugin.results.checkpoint_names import TrainingProgress, shape_of
from lmsat_plugin.results.json_values import as_integer
from lmsat_plugin.results.origins import Naming
from lmsat_plugin.results.training_order import natural
from lmsat_plugin.series.checkpoint import warn_once

FILE = "trainer_state.json"


@dataclass(frozen=True, kw_only=True)
class _State:
    """What the Trainer noted in a checkpoint's folder, and what the folder's name states."""

    path: Path
    folder: Path
    """The checkpoint's."""
    step: int
    tokens: int | None
    """None where the Trainer did not count."""
    named: TrainingProgress


def believe_states(stated: Mapping[Path, TrainingProgress], naming: Naming) -> dict[Path, TrainingProgress]:
    """Return where in training each checkpoint lies, by its folder: as the Trainer noted it, else as names state it.

    Of each run and stage the Trainer's steps are believed where they grow in the order of the names, and its tokens
    where they grow with the step. A user's pattern is believed more. What is not believed is named in a warning.
    """
    groups: dict[tuple[str | None, str | None], list[_State]] = {}
    for folder, named in stated.items():
        if (state := _read(folder, named, naming)) is not None:
            groups.setdefault((named.run, named.stage), []).append(state)
    believed = dict(stated)
    for states in groups.values():
        steps = states
        if naming.pattern is None and (fallen := _first_fallen(states)) is not None:
            _warn(
                fallen,
                f"its global_step, {fallen.step}, does not grow as the checkpoints' names do",
                "the names' steps",
            )
            steps = []
        for state in steps:
            if naming.pattern is None or state.named.step is None:
                believed[state.folder] = _at_step(state, naming)
        placed = [(believed[state.folder].step, state.tokens, state) for state in states]
        counted = sorted(
            ((step, tokens, state) for step, tokens, state in placed if step is not None and tokens is not None),
            key=lambda each: each[0],
        )
        for (step, tokens, _), (later, after, state) in pairwise(counted):
            if step < later and tokens >= after:
                what = f"its num_input_tokens_seen, {after}, does not grow with the step"
                _warn(state, what, "the tokens of names or tokens_per_step")
                break
        else:
            for _, tokens, state in counted:
                believed[state.folder] = replace(believed[state.folder], tokens=tokens)
    return believed


def _at_step(state: _State, naming: Naming) -> TrainingProgress:
    """Return what a state's step makes of what the name states; tokens of a name stay, counted ones are new."""
    counted = as_integer(state.step * naming.tokens_per_step) if naming.tokens_per_step else None
    by_name = Naming(naming.pattern).progress(state.path.parent.name).tokens
    return replace(state.named, step=state.step, tokens=by_name if by_name is not None else counted)


def _first_fallen(states: Sequence[_State]) -> _State | None:
    """Return the first state whose step is not above that of the checkpoint before it, as the names order them."""
    series: dict[str, list[tuple[object, _State]]] = {}
    for state in states:
        name = state.path.parent.name
        if state.named.step is not None:
            series.setdefault("", []).append((state.named.step, state))
        elif (shape := shape_of(name)) is not None:
            # Names that differ in a number alone, such as ckpt_001, are in its order.
            series.setdefault(shape, []).append((natural(name), state))
    for several in series.values():
        ordered = sorted(several, key=lambda pair: pair[0])  # type: ignore[arg-type, return-value]
        for (place, before), (later, after) in pairwise(ordered):
            if place != later and before.step >= after.step:
                return after
    return None


def _warn(state: _State, what: str, instead: str) -> None:
    warn_once(f"{state.path} is not believed, nor are those of its run, since {what}: {instead} count", str(state.path))


def _read(folder: Path, named: TrainingProgress, naming: Naming) -> _State | None:
    """Return what the Trainer noted; None where it noted nothing, or nothing that can be read, which is said."""
    path = folder / FILE
    if not path.is_file() and not naming.states_one(folder.name) and naming.states_one(folder.parent.name):
        # Of step1000/hf it lies in step1000.
        path = folder.parent / FILE
    if not path.is_file():
        return None
    try:
        state = json.loads(read_file(path))
        step, tokens = (as_integer(state.get(key)) for key in ("global_step", "num_input_tokens_seen"))
        if step is None or step < 0:
            raise ValueError("its global_step is no number of steps")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        warn_once(f"{path} is ignored, since it cannot be read ({first_sentence(error)})", str(path))
        return None
    return _State(
        path=path, folder=folder, step=step, tokens=tokens if tokens is not None and tokens > 0 else None, named=named
    )
