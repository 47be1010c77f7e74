"""One lm-eval result file, of any version, as plain records, and its arrays. Imports neither lm_eval nor torch."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import check_file, read_file
from lmsat_plugin.metrics import metric
from lmsat_plugin.results.json_values import as_dict, as_integer, as_number, as_text, clean, first
from lmsat_plugin.results.origins import Naming, Origin, read_origin, read_settings

logger = logging.getLogger(__name__)

_CORPUS_SETTINGS = ("max_tokens", "seed", "text_field", "limit", "window", "sha256")
_STATED = ("corpus", "max_tokens", "seed", "text_field")
"""Settings of the text that lm-eval keeps in a task's configuration."""
_BULK = {
    *("results", "groups", "configs", "samples", "versions", "n-shot", "n-samples", "higher_is_better"),
    *("task_hashes", "pretty_env_info"),
}
"""The long parts of result files, which `TaskResult` keeps or nothing needs."""
NO_METRICS = {"name", "alias", "sample_len", "sample_count", " ", ""}
_NOTHING = {"", "N/A", "NA", "None"}


@dataclass
class TaskResult:
    """The results of one task in one file."""

    origin: Origin
    task: str
    corpus: str | None
    num_fewshot: int | None
    n_samples: int | None
    model_settings: dict[str, str]
    corpus_settings: dict[str, str]
    metrics: list[tuple[str, str, float, float, bool | None]]
    """Name, filter, value, standard error (NaN if unknown), whether higher is better."""
    part: int | None
    """The index of the task's notes among `ResultFile.provenance`; None for a task without notes."""


@dataclass(frozen=True)
class ResultFile:
    """One result file, without the values of its samples and the configurations of its tasks."""

    path: Path
    origin: Origin
    tasks: list[TaskResult]
    provenance: list[dict[str, Any]]
    """What lmsat noted of the measurement, one dict for each corpus."""
    header: dict[str, Any]
    """What the file says of the evaluation as a whole, without lmsat's notes."""
    datasets: dict[str, tuple[str, str | None]]
    """The path and the split of the data, by task, where the file names a path."""

    @property
    def group_members(self) -> dict[str, list[str]]:
        """The member tasks of each group."""
        groups = as_dict(self.header.get("group_subtasks"))
        return {group: tasks for group, tasks in groups.items() if isinstance(tasks, list)}

    def text(self, key: str) -> str | None:
        """Return an entry of the header that is text; None for any other."""
        return as_text(self.header.get(key))

    def notes(self, task: str) -> dict[str, Any]:
        """Return what lmsat noted of a task; empty if it noted nothing."""
        part = next((result.part for result in self.tasks if result.task == task), None)
        return {} if part is None else self.provenance[part]

    def arrays(self, task: str, prefixes: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the arrays of a task's measurement whose names begin with one of the prefixes.

        They are in the file that lmsat's notes name, or, as in a tree that was moved, one of that name beside this one.
        Raises `LmsatError` for a task without arrays, and for arrays that cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        name = as_text(self.notes(task).get("arrays"))
        if name is None:
            raise LmsatError(
                f"{task} has left no arrays: run it again with arrays=FOLDER in --model_args, or in a sweep"
            )
        path = self.path.parent / name
        if not path.exists() and (neighbour := self.path.parent / Path(name).name).exists():
            path = neighbour
        try:
            check_file(path)
            with safe_open(path, framework="numpy") as stored:
                keys = [key for key in stored.keys() if key.startswith(tuple(prefixes))]  # noqa: SIM118
                return {key: stored.get_tensor(key) for key in keys}
        except (OSError, ValueError, SafetensorError) as error:
            raise LmsatError(
                f"the arrays {path} cannot be read ({first_sentence(error)}): restore them or run {task} again"
            ) from error


def read_result_file(path: Path, name: str, naming: Naming) -> ResultFile | None:
    """Return the content of a result file; None for any other file, and with a warning for a broken one.

    ``name`` is the path that the table shows.
    """
    data = _parse(path)
    if data is None:
        return None
    provenance = _provenance_parts(data)
    origin = read_origin(data, provenance, path, name=clean(name), naming=naming)
    data["results"] = {**as_dict(data.get("groups")), **data["results"]}
    tasks = [_task(data, provenance, origin, task) for task in data["results"]]
    texts = [
        value
        for entry in data["results"].values()
        for key, value in as_dict(entry).items()
        if isinstance(value, str) and key not in NO_METRICS and value.strip() not in _NOTHING
    ]
    if texts:
        logger.warning(
            "%s has the value '%.40s' where a number belongs, which is left out: restore or remove the file",
            path,
            texts[0],
        )
    header = {key: value for key, value in data.items() if key not in _BULK}
    header["config"] = {key: value for key, value in as_dict(data.get("config")).items() if key != "lmsat"}
    return ResultFile(
        path=path, origin=origin, tasks=tasks, provenance=provenance, header=header, datasets=dict(_datasets(data))
    )


def _datasets(data: dict[str, Any]) -> Iterator[tuple[str, tuple[str, str | None]]]:
    for task, entry in as_dict(data.get("configs")).items():
        config = as_dict(entry)
        path, split = (as_text(config.get(key)) for key in ("dataset_path", "test_split"))
        if path is not None:
            yield clean(task), (path, split or as_text(config.get("validation_split")))


def _parse(path: Path) -> dict[str, Any] | None:
    """Return the content of a result file; None for any other, with a warning if it was meant to be one."""
    meant = path.name.startswith("results")
    try:
        text = read_file(path)
        if not meant and b'"results"' not in text:
            return None
        data = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s is skipped (%s): restore or remove it", path, first_sentence(error))
        return None
    if isinstance(data, dict):
        results = data.get("results")
        if isinstance(results, dict) and all(isinstance(entry, dict) for entry in results.values()):
            return data
        meant |= "versions" in data
    if meant:
        logger.warning("%s is skipped (its 'results' are not lm-eval's): restore or remove it", path)
    return None


def _task(data: dict[str, Any], provenance: list[dict[str, Any]], origin: Origin, name: str) -> TaskResult:
    def stated(section: str, key: str = name) -> Any:
        return as_dict(data.get(section)).get(key)

    entry, config = as_dict(stated("results")), as_dict(stated("configs"))
    shots = stated("n-shot"), config.get("num_fewshot"), stated("config", "num_fewshot")
    n_samples = as_dict(stated("n-samples")).get("effective", entry.get("sample_len"))
    part, probe = _own_part(provenance, name, as_dict(config.get("metadata")))
    text: dict[str, Any] = {}
    settings: dict[str, str] = {}
    model_settings = origin.settings
    if part is not None:
        notes = provenance[part]
        noted = as_dict(as_dict(notes.get("probes")).get(probe))
        # A probe of the weights alone is measured along with a corpus, but does not read it.
        text = as_dict(notes.get("corpus")) if noted.get("reads_corpus") is not False else {}
        n_samples = text.get("documents")
        of_text = {key: text.get(key) for key in _CORPUS_SETTINGS}
        settings = read_settings({**of_text, **as_dict(noted.get("settings"))})
    corpus = as_text(text.get("corpus"))
    if corpus is None:
        model_settings, settings = {**model_settings, **settings}, {}
    else:
        # The settings of the corpus state these.
        model_settings = {k: v for k, v in model_settings.items() if k not in ("limit", "max_length")}
    return TaskResult(
        origin=origin,
        task=clean(name),
        corpus=corpus,
        num_fewshot=first(*map(as_integer, shots)),
        n_samples=as_integer(n_samples),
        model_settings=model_settings,
        corpus_settings=settings,
        metrics=list(_metrics(entry, as_dict(stated("higher_is_better")))),
        part=part,
    )


def _own_part(provenance: list[dict[str, Any]], task: str, metadata: dict[str, Any]) -> tuple[int | None, str]:
    """Return the index of the notes that belong to a task, and the name of the task's probe.

    The notes of sweeps name their tasks. Other notes are those that hold the probe in the task's name; where several
    do, those on the text that ``metadata``, from the task's configuration, describes.
    """
    for index, part in enumerate(provenance):
        if (stated := as_text(as_dict(part.get("tasks")).get(task))) is not None:
            return index, stated
    probe = task.removeprefix("lmsat_")
    parts = [index for index, part in enumerate(provenance) if probe in as_dict(part.get("probes"))]
    if probe == task or not parts:
        return None, probe
    given = {key: metadata[key] for key in _STATED if key in metadata}
    corpora = {index: as_dict(provenance[index].get("corpus")) for index in parts}
    agreeing = (i for i in parts if all(corpora[i].get(key) == value for key, value in given.items()))
    return next(agreeing, parts[0]), probe


def _metrics(entry: dict[str, Any], directions: dict[str, Any]) -> Iterator[tuple[str, str, float, float, bool | None]]:
    for key, raw in entry.items():
        name, comma, filter_ = key.partition(",")
        value = as_number(raw)
        if value is None or name in NO_METRICS or name.endswith("_stderr"):
            continue
        stderr = as_number(entry.get(f"{name}_stderr{comma}{filter_}"))
        # Files of the old schema do not state the direction.
        higher = directions[name] if name in directions else metric(name).higher_is_better
        yield (
            clean(name),
            clean(filter_) or "none",
            value,
            math.nan if stderr is None else stderr,
            higher if isinstance(higher, bool) else None,
        )


def _provenance_parts(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return lmsat's notes, one dict for each corpus, without the identities that sweeps compare."""
    notes = as_dict(data.get("config")).get("lmsat")
    parts = [part for part in (notes if isinstance(notes, list) else [notes]) if isinstance(part, dict)]
    return [{key: value for key, value in part.items() if key != "identities"} for part in parts]
