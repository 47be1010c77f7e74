"""The commands that measure a checkpoint again, as its result files state how it was measured."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.metrics import is_measurement, probe_of_task
from lmsat_plugin.outside_text import printable
from lmsat_plugin.results.json_values import as_dict, as_dicts, as_text
from lmsat_plugin.results.reading import ResultFile

NAME = "\x00"
"""Stands for the checkpoint's name in a command, so that those of a model are one."""
_SECRET = re.compile(r"(^|_)(token|auth|api|secret|password|key)($|_)")
_CORPUS = ("corpus", "max_tokens", "seed", "text_field", "prefix")
_MOST_TASKS = 40
_PLACE = ("pretrained", "revision", "subfolder")
"""The arguments of a model that say where it is."""


def commands_of(analyses: Analyses, checkpoints: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return ``commands``, with `NAME` in a checkpoint's name's place, and ``commands_of``: by model and checkpoint.

    ``checkpoints`` has a row for each checkpoint of a model, with its number ``k``. A model all of whose checkpoints
    have the same commands has one list of their numbers, others have a list for each checkpoint.
    """
    keys = ["model", "revision", "at"]
    numbered = pd.concat(list(checkpoints.values()))[[*keys, "k"]]
    rows = analyses.table[[*keys, "path", "task", "num_fewshot"]].merge(numbered, on=keys)
    commands: dict[str, int] = {}
    by_model: dict[str, list[list[int]]] = {model: [[] for _ in own.k] for model, own in checkpoints.items()}
    by_file: dict[tuple[str, int, str, Any], dict[str, int | None]] = {}
    for model, name, path, task, shot, k in rows[[*keys[:2], "path", "task", "num_fewshot", "k"]].itertuples(
        index=False
    ):
        by_file.setdefault((str(model), int(k), str(path), name), {})[str(task)] = None if pd.isna(shot) else int(shot)
    for (model, k, path, name), shots in by_file.items():
        for command in _of_file(analyses.results.files[path], shots):
            text = printable(command)
            if isinstance(name, str) and len(name) > 1:
                text = text.replace(printable(name), NAME)
            by_model[model][k].append(commands.setdefault(text, len(commands)))
    return {
        "commands": list(commands),
        "commands_of": [own[0] if all(one == own[0] for one in own) else own for own in by_model.values()],
    }


def _of_file(file: ResultFile, shots: Mapping[str, int | None]) -> Iterator[str]:
    """Yield a command for each number of shots of some tasks in a file; none where it does not say how it was made."""
    config = as_dict(file.header.get("config"))
    model, given = as_text(config.get("model")), config.get("model_args")
    arguments = _arguments(given)
    if model is None or arguments is None:
        return
    members = {member for group in shots for member in file.group_members.get(group, [])}
    alike: dict[tuple[int | None, str | None], list[str]] = {}
    for task, shot in shots.items():
        if task not in members:
            alike.setdefault((None if is_measurement(task) else shot, _reference_of(file, task)), []).append(task)
    for (shot, reference), tasks in alike.items():
        average = as_dict(as_dict(file.notes(tasks[0]).get("checkpoint")).get("average"))
        if reference == "" or (average and reference is not None):
            continue
        if average:
            yield from _of_average(file, average, tasks, shot)
            continue
        words = ["lm_eval", "--model", model, "--model_args", arguments, "--tasks", ",".join(tasks[:_MOST_TASKS])]
        if shot is not None:
            words += ["--num_fewshot", str(shot)]
        if config.get("limit") is not None:
            words += ["--limit", str(config["limit"])]
        metadata = _metadata(file, tasks, reference)
        yield shlex.join([*words, *(["--metadata", *metadata] if metadata else [])])


def _arguments(given: Any) -> str | None:
    """Return the arguments of a model as lm-eval takes them, without secrets; None where they are not stated."""
    if isinstance(given, str):
        parts = [part for part in given.split(",") if not _SECRET.search(part.partition("=")[0])]
        return ",".join(parts) or None
    known = {key: value for key, value in as_dict(given).items() if value is not None and not _SECRET.search(key)}
    if not known:
        return None
    simple = all(isinstance(value, str | int | float) and not set(",=") & set(str(value)) for value in known.values())
    return ",".join(f"{key}={value}" for key, value in known.items()) if simple else json.dumps(known)


def _of_average(file: ResultFile, average: Mapping[str, Any], tasks: Sequence[str], shot: int | None) -> Iterator[str]:
    """Yield the sweep that makes an average, which no file holds, and measures it, into a folder of its own.

    None where its parts were converted from a format of training, of which the result does not say all.
    """
    config, parts = as_dict(file.header.get("config")), as_dicts(average.get("of"))
    checkpoint = as_dict(file.notes(tasks[0]).get("checkpoint"))
    places = list(dict.fromkeys(place for part in parts if (place := as_text(part.get("pretrained")))))
    if not places or any("conversion" in part for part in parts):
        return
    default = places[0]
    if not any("commit" in part for part in parts):
        if not all(map(os.path.isabs, places)):
            return
        # The folder of the run: an average's place among its checkpoints depends on all of them.
        places = [os.path.commonpath([Path(place).parent for place in places])]
        default = Path(places[0]).name
    name, corpus = as_text(checkpoint.get("model")), _corpus_of(file, tasks)
    words = ["lmsat", "sweep", *places]
    if name is not None and [name] != [default, *places[1:]]:
        words += ["--name", name]
    words += ["--revisions", str(checkpoint.get("revision")), "--tasks", ",".join(tasks[:_MOST_TASKS])]
    if text := corpus.pop("corpus", None):
        words += ["--corpus", str(text)]
    arguments = {
        k: v for k, v in as_dict(config.get("model_args")).items() if k not in _PLACE and not _SECRET.search(k)
    }
    keys: dict[str, Any] = {**corpus, "limit": config.get("limit"), "num_fewshot": shot}
    keys |= {"metadata": _probe_settings(file, tasks), "model_args": arguments}
    yield shlex.join([*words, *_pairs({k: v for k, v in keys.items() if v not in (None, {})}), "--output", "again"])


def _reference_of(file: ResultFile, task: str) -> str | None:
    """Return the checkpoint beside which a task has seen its own; None if it needs none, "" where that is not known."""
    notes = _notes_of_probe(file, task)
    if not as_dict(notes.get("settings")).get("reference"):
        return None
    return as_text(as_dict(notes.get("reference")).get("pretrained")) or ""


def _metadata(file: ResultFile, tasks: Sequence[str], reference: str | None) -> list[str]:
    """Return what ``--metadata`` has to say: the text, and the settings of probes."""
    settings = {**_corpus_of(file, tasks), **_probe_settings(file, tasks)}
    return _pairs(settings if reference is None else {**settings, "reference": reference})


def _corpus_of(file: ResultFile, tasks: Sequence[str]) -> dict[str, Any]:
    """Return the text that tasks were measured on, and what of it."""
    noted = [as_dict(file.notes(task).get("corpus")) for task in tasks]
    return {name: own[name] for own in noted for name in _CORPUS if own.get(name) is not None}


def _probe_settings(file: ResultFile, tasks: Sequence[str]) -> dict[str, Any]:
    """Return the settings of the probes of tasks."""
    settings: dict[str, Any] = {}
    for task in tasks:
        own = as_dict(_notes_of_probe(file, task).get("settings"))
        settings |= {name: value for name, value in own.items() if value is not None}
    return settings


def _notes_of_probe(file: ResultFile, task: str) -> dict[str, Any]:
    notes = file.notes(task)
    probe = as_dict(notes.get("tasks")).get(task, probe_of_task(task))
    return as_dict(as_dict(notes.get("probes")).get(probe))


def _pairs(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as ``NAME=VALUE``."""
    return [
        f"{name}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
        for name, value in settings.items()
    ]
