"""One result file, lm-eval's of any version or another tool's, as plain records, and its arrays.

Imports neither lm_eval nor torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import FileStamp, read_file, stamp_file
from lmsat_plugin.metrics import metric, probe_of_task
from lmsat_plugin.results.array_files import ArraysError, array_path, loss_tasks, read_arrays
from lmsat_plugin.results.digests import DIGESTS, fault_of
from lmsat_plugin.results.json_values import as_dict, as_dicts, as_integer, as_list, as_number, as_text, clean, first
from lmsat_plugin.results.origins import Naming, Origin, read_origin, read_settings
from lmsat_plugin.results.other_tools import gpt_neox, lighteval, olmes, records, tables
from lmsat_plugin.results.other_tools.documents import Document
from lmsat_plugin.results.tree_files import TreeFile

_CORPUS_SETTINGS = ("max_tokens", "seed", "text_field", "limit", "window", "sha256")
_STATED = ("corpus", "max_tokens", "seed", "text_field")
"""Settings of the text that lm-eval keeps in a task's configuration."""
_WITHOUT_WINDOWS = {"ngram"}
"""Probes that read a corpus, but no windows, of which older files do not say so."""
_BULK = {
    *("results", "groups", "configs", "samples", "n-shot", "n-samples", "higher_is_better"),
    *("task_hashes", "pretty_env_info"),
}
"""The long parts of result files, which `TaskResult` keeps or nothing needs."""
NO_METRICS = {"name", "alias", "sample_len", "sample_count", " ", ""}
_NOTHING = {"", "N/A", "NA", "None"}
_REMEDIES = {
    "unreadable": ("skipped", "restore or remove it"),
    "digest": ("left out", "restore it, or measure again what `lmsat verify` names"),
}
"""By kind what becomes of a broken file, and what to do about it."""
_MOST_ALIKE = 3
"""So many broken files with the same fault are named one by one."""
_OF_SWEEPS = {"identities", *DIGESTS}
_OTHERS = ((b'"evaluation_results"', b'"model_info"'), (b'"task_config"', b'"model_config"'))
"""What JSON files of other tools hold: records of Every Eval Ever, and OLMES'."""


class BrokenResultError(LmsatError):
    """A result file that readers leave out: of the kind ``unreadable`` or ``digest``, for the reason ``fault``."""

    def __init__(self, path: Path, kind: str, fault: str) -> None:
        done, remedy = _REMEDIES[kind]
        super().__init__(f"{path} is {done} ({fault}): {remedy}")
        self.path, self.kind, self.fault = path, kind, fault


def summarised(broken: Sequence[BrokenResultError]) -> list[str]:
    """Return a sentence on each broken file; of many with the same fault one, with their number."""
    alike: dict[tuple[str, str], list[BrokenResultError]] = {}
    for error in broken:
        alike.setdefault((error.kind, error.fault), []).append(error)
    sentences: list[str] = []
    for (kind, fault), errors in alike.items():
        done, remedy = _REMEDIES[kind]
        if len(errors) > _MOST_ALIKE:
            sentences.append(
                f"{len(errors)} files are {done} ({fault}), the first of them {errors[0].path}: "
                f"{remedy.replace('it', 'them', 1)}"
            )
        else:
            sentences += map(str, errors)
    return sentences


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
    is_group: bool = False
    """Whether it is the mean of other tasks, of which some are in the same file."""


@dataclass(frozen=True)
class Rest:
    """What a result file holds beside values: see the properties of `ResultFile`."""

    provenance: list[dict[str, Any]]
    header: dict[str, Any]
    datasets: dict[str, tuple[str, str | None]]


@dataclass(frozen=True)
class ResultFile:
    """One result file, without the values of its samples and the configurations of its tasks."""

    path: Path
    origin: Origin
    tasks: list[TaskResult]
    rest: Rest | FileStamp
    """What the properties hold; or the file's stamp, and they are read again when they are asked for."""
    index: int = 0
    """Its place among what the file holds: a table has several checkpoints."""
    warning: str | None = None
    """What readers say about it."""

    @cached_property
    def _read_rest(self) -> Rest:
        # Trees hold tens of thousands of files, of which most commands need no more than the values.
        if isinstance(self.rest, Rest):
            return self.rest
        documents = documents_in(self.path)
        if self.index >= len(documents) or stamp_file(self.path) != self.rest:
            raise LmsatError(f"{self.path} was changed while it was read: run the command again")
        return _rest(documents[self.index].data)

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """What lmsat noted of the measurement, one dict for each corpus."""
        return self._read_rest.provenance

    @property
    def header(self) -> dict[str, Any]:
        """What the file says of the evaluation as a whole, without lmsat's notes."""
        return self._read_rest.header

    @property
    def datasets(self) -> dict[str, tuple[str, str | None]]:
        """The path and the split of the data, by task, where the file names a path."""
        return self._read_rest.datasets

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

        Raises `ArraysError` for arrays that are missing, cut or not those of this result, and `LmsatError` for a task
        without arrays.
        """
        notes = self.notes(task)
        path = array_path(self.path, notes)
        if path is None:
            raise LmsatError(
                f"{task} has left no arrays: run it again with arrays=FOLDER in --model_args, or in a sweep"
            )
        try:
            arrays = read_arrays(path, notes, self._losses(notes))
        except ArraysError as error:
            raise ArraysError(error.fault, f"run {task} again") from error
        return {name: array for name, array in arrays.items() if name.startswith(tuple(prefixes))}

    def _losses(self, notes: dict[str, Any]) -> list[float]:
        """Return the losses that were measured along with what some notes are about."""
        tasks = loss_tasks(notes)
        return [
            value
            for result in self.tasks
            if result.part is not None and self.provenance[result.part] is notes and result.task in tasks
            for name, _, value, _, _ in result.metrics
            if name == "loss"
        ]


def read_result_file(file: TreeFile, naming: Naming, *, keep_rest: bool = True) -> list[ResultFile]:
    """Return the content of a result file, once for each checkpoint; nothing for a file that was never meant to be one.

    Unless ``keep_rest``, what is not of the table is read again when it is asked for. Raises `BrokenResultError` for a
    file that is cut, or does not hold its digest.
    """
    found: list[ResultFile] = []
    names: set[str] = set()
    for index, document in enumerate(documents_in(Path(file.path))):
        name = clean(f"{file.name}#{document.part}" if document.part else file.name)
        # A table may have several rows for one checkpoint.
        name = name if name not in names else f"{name}#{index}"
        names.add(name)
        found.append(_result_file(document, index, file, name, naming=naming, keep_rest=keep_rest))
    return found


def _result_file(
    document: Document, index: int, file: TreeFile, name: str, *, naming: Naming, keep_rest: bool
) -> ResultFile:
    data, path = document.data, Path(file.path)
    provenance = _provenance_parts(data)
    origin = read_origin(data, provenance, path, name=name, naming=naming, checkpoint=document.checkpoint)
    results = {**as_dict(data.get("groups")), **data["results"]}
    return ResultFile(
        path=path,
        origin=origin,
        tasks=list(_tasks(document, results, provenance, origin)),
        rest=_rest(data) if keep_rest else file.stamp,
        index=index,
        warning=_warning(path, results),
    )


def _rest(data: dict[str, Any]) -> Rest:
    header = {key: value for key, value in data.items() if key not in _BULK}
    header["config"] = {key: value for key, value in as_dict(data.get("config")).items() if key != "lmsat"}
    return Rest(provenance=_provenance_parts(data), header=header, datasets=dict(_datasets(data)))


def _warning(path: Path, results: dict[str, Any]) -> str | None:
    """Return what to say of a text where a number belongs; None if there is none."""
    for entry in results.values():
        for key, value in as_dict(entry).items():
            if isinstance(value, str) and key not in NO_METRICS and value.strip() not in _NOTHING:
                remedy = "restore or remove the file"
                return f"{path} has the value '{value:.40}' where a number belongs, which is left out: {remedy}"
    return None


def _datasets(data: dict[str, Any]) -> Iterator[tuple[str, tuple[str, str | None]]]:
    for task, entry in as_dict(data.get("configs")).items():
        config = as_dict(entry)
        path, split = (as_text(config.get(key)) for key in ("dataset_path", "test_split"))
        if path is not None:
            yield clean(task), (path, split or as_text(config.get("validation_split")))


def parse_result_file(path: Path) -> dict[str, Any] | None:
    """Return the content of a result file of lm-eval's form; None for a file that was never meant to be one.

    Raises `BrokenResultError` for one that is cut, or does not hold its digest.
    """
    return None if path.suffix.lower() in (".jsonl", *tables.SUFFIXES) else _parse(path)[0]


def documents_in(path: Path) -> list[Document]:
    """Return what a file holds, whoever wrote it, as files of lm-eval; nothing for one that is no result file.

    Raises `BrokenResultError` for one that is cut, or does not hold its digest.
    """
    try:
        if path.suffix.lower() in tables.SUFFIXES:
            return tables.read_table(path) or []
        if path.name.endswith(olmes.ALL_TASKS):
            return olmes.read_lines(read_file(path))
        content, other = _parse(path)
        if content is not None and lighteval.is_lightevals(content):
            return lighteval.read_lighteval(content, path)
        if content is not None:
            return [gpt_neox.read_neox(content, path) if gpt_neox.is_neox(content) else Document(content)]
        if other is not None and records.is_record(other):
            return records.read_record(other)
        return [] if other is None else olmes.read_metrics(other) or []
    except (OSError, ValueError, RecursionError, OverflowError) as error:
        raise BrokenResultError(path, "unreadable", first_sentence(error)) from error


def _parse(path: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the content of a JSON file if it has lm-eval's form; and that of one that may be another tool's."""
    meant = path.name.startswith("results")
    try:
        data = read_file(path)
        is_other = any(all(mark in data for mark in marks) for marks in _OTHERS)
        if not (meant or is_other or b'"results"' in data):
            return None, None
        document = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenResultError(path, "unreadable", first_sentence(error)) from error
    if isinstance(document, dict):
        results = document.get("results")
        if isinstance(results, dict) and all(isinstance(entry, dict) for entry in results.values()):
            try:
                fault = fault_of(path, data, document)
            except RecursionError as error:
                raise BrokenResultError(path, "unreadable", first_sentence(error)) from error
            if fault is None:
                return document, None
            raise BrokenResultError(path, "digest", fault)
        if is_other and "results" not in document:
            return None, document
        meant |= "versions" in document
    if meant:
        raise BrokenResultError(path, "unreadable", "its 'results' are not lm-eval's")
    return None, None


def _tasks(
    document: Document, results: dict[str, Any], provenance: list[dict[str, Any]], origin: Origin
) -> Iterator[TaskResult]:
    data = document.data
    configs, shots, n_samples, directions = (
        as_dict(data.get(section)) for section in ("configs", "n-shot", "n-samples", "higher_is_better")
    )
    groups = as_dict(data.get("group_subtasks"))
    shots_of_all = as_dict(data.get("config")).get("num_fewshot")
    # The settings of the corpus state these.
    stated = ("limit", "max_length", "rolling_prefix")
    beside_corpus = {key: value for key, value in origin.settings.items() if key not in stated}
    corpora = [{key: as_dict(part.get("corpus")).get(key) for key in _CORPUS_SETTINGS} for part in provenance]
    of_corpora = [read_settings(corpus) for corpus in corpora]
    for name, entry in ((name, as_dict(entry)) for name, entry in results.items()):
        config = as_dict(configs.get(name))
        part, probe = _own_part(provenance, name, as_dict(config.get("metadata")))
        documents = as_dict(n_samples.get(name)).get("effective", entry.get("sample_len"))
        corpus: str | None = document.corpora.get(name)
        settings: dict[str, str] = {}
        if part is not None:
            noted = as_dict(as_dict(provenance[part].get("probes")).get(probe))
            of_probe = as_dict(noted.get("settings"))
            # A probe of the weights alone is measured along with a corpus, but does not read it.
            if noted.get("reads_corpus") is False:
                documents, settings = None, read_settings(of_probe)
            else:
                text = as_dict(provenance[part].get("corpus"))
                documents, corpus = text.get("documents"), as_text(text.get("corpus"))
                settings = read_settings({**corpora[part], **of_probe}) if of_probe else of_corpora[part]
                # Versions that note no policy had this one.
                if noted.get("reads_windows") is not False and probe not in _WITHOUT_WINDOWS:
                    settings = {**settings, "prefix": clean(str(text.get("prefix") or "document"))}
        yield TaskResult(
            origin=origin,
            task=clean(name),
            corpus=corpus,
            num_fewshot=first(*map(as_integer, (shots.get(name), config.get("num_fewshot"), shots_of_all))),
            n_samples=as_integer(documents),
            model_settings=beside_corpus if corpus is not None else {**origin.settings, **settings},
            corpus_settings=settings if corpus is not None else {},
            metrics=list(_metrics(entry, as_dict(directions.get(name)))),
            part=part,
            is_group=any(isinstance(member, str) and member in results for member in as_list(groups.get(name))),
        )


def _own_part(provenance: list[dict[str, Any]], task: str, metadata: dict[str, Any]) -> tuple[int | None, str]:
    """Return the index of the notes that belong to a task, and the name of the task's probe.

    The notes of sweeps name their tasks. Other notes are those that hold the probe in the task's name; where several
    do, those on the text that ``metadata``, from the task's configuration, describes.
    """
    for index, part in enumerate(provenance):
        if (stated := as_text(as_dict(part.get("tasks")).get(task))) is not None:
            return index, stated
    probe = probe_of_task(task)
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
        if name in NO_METRICS or name.endswith("_stderr") or (value := as_number(raw)) is None:
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
    """Return lmsat's notes, one dict for each corpus, without what only sweeps and `fault_of` need."""
    notes = as_dict(data.get("config")).get("lmsat")
    return [{key: value for key, value in part.items() if key not in _OF_SWEEPS} for part in as_dicts(notes)]
