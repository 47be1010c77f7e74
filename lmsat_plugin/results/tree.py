"""Class `Results`: a tree of result files, lm-eval's of any version or other tools', with its table and its arrays.

Imports neither lm_eval nor torch.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import user_path
from lmsat_plugin.results.cache import Cache
from lmsat_plugin.results.checkpoint_names import compile_pattern
from lmsat_plugin.results.failures import diverged_files
from lmsat_plugin.results.json_values import as_dict
from lmsat_plugin.results.origins import Naming
from lmsat_plugin.results.patterns import matching
from lmsat_plugin.results.places import Place, places_of
from lmsat_plugin.results.reading import ResultFile, TaskResult
from lmsat_plugin.results.series import in_series
from lmsat_plugin.results.table import make_table
from lmsat_plugin.results.training_order import natural
from lmsat_plugin.results.variants import Variant, choose_variant, find_variants, label, mixed_types

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Results:
    """The results in a folder. Each file is parsed once; arrays are read when they are asked for."""

    root: Path
    """The folder, or the one file."""
    table: pd.DataFrame
    """See `lmsat_plugin.load_results`."""
    files: Mapping[str, ResultFile]
    """By their paths in the table."""
    places: Mapping[str, Place]
    """Where in its training each file's checkpoint lies, by the file's path in the table."""
    variants: Mapping[str, Variant]
    """By their names in the table."""
    texts: Mapping[str, tuple[str, ...]]
    """The texts that each task was measured on: corpora, with the settings in which texts of one corpus differ."""
    tasks: tuple[TaskResult, ...]
    """What the table is made of."""
    all_results: bool = False
    """Whether the table holds older measurements of the same value, too."""
    warnings: tuple[str, ...] = ()
    """What was left out, and why, and whose checkpoints were computed in several types."""
    note: str | None = None
    """How many values were measured again, of which the newest is in the table; None if none was."""
    corpora: tuple[str, ...] | None = None
    """The corpora that were chosen, in the order in which they were named; None if none was chosen."""

    @cached_property
    def groups(self) -> frozenset[str]:
        """The tasks that are means of other tasks, whose results stand beside them."""
        return frozenset(task.task for task in self.tasks if task.is_group)

    @cached_property
    def series(self) -> pd.DataFrame:
        """The table by series: see `in_series`."""
        return in_series(self.table)

    @classmethod
    def read(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        all_results: bool = False,
        step_pattern: str | None = None,
        tokens_per_step: int | None = None,
    ) -> Results:
        """Read a folder, which is searched with all it holds, or one file; or several of them.

        Other files are passed over, broken result files with a warning. A checkpoint that a sweep recorded as diverged
        has NaN as its values. The arguments are those of `load_results`.
        Raises `LmsatError` if there is no result, or for a bad pattern.
        """
        return cls.of_cache(_cache(path, step_pattern, tokens_per_step), all_results=all_results)

    @classmethod
    def of_cache(cls, cache: Cache, *, all_results: bool) -> Results:
        """Read what a cache does not hold. Raises `LmsatError` if there is no result."""
        with _without_garbage_collection():
            return cls._of_cache(cache, all_results)

    @classmethod
    def _of_cache(cls, cache: Cache, all_results: bool) -> Results:
        measured, warnings = cache.read_files()
        diverged, others = diverged_files(cache.found, cache.naming, measured)
        warnings += others
        files = {file.origin.path: file for file in (*measured, *diverged)}
        tasks = [task for file in files.values() for task in file.tasks]
        if not all_results:
            tasks = _without_superseded(tasks)
        warnings += mixed_types(tasks)
        for warning in warnings:
            logger.warning("%s", warning)
        if not any(task.metrics for task in tasks):
            if any(file.tasks for file in measured):
                raise LmsatError(
                    f"the results in {cache.root} hold no number: their files say why, under reasons; measure "
                    "another task"
                )
            raise LmsatError(
                f"{cache.root} holds no lm-eval results: give a folder with files that lm-eval wrote, or another tool "
                "that lmsat reads"
            )
        places = places_of((file.origin for file in files.values()), cache.naming)
        read, note = cls._of_tasks(cache.root, files, tasks, places=places, all_results=all_results)
        if note is not None:
            logger.warning("%s", note)
        return replace(read, warnings=tuple(warnings), note=note)

    @classmethod
    def _of_tasks(
        cls,
        root: Path,
        files: Mapping[str, ResultFile],
        tasks: Sequence[TaskResult],
        *,
        places: Mapping[str, Place],
        all_results: bool,
    ) -> tuple[Results, str | None]:
        """Return results of some tasks, and a sentence on values that were measured again."""
        variants = find_variants(tasks)
        pairs = list(zip(tasks, variants, strict=True))
        texts: dict[str, set[str]] = {}
        for task, variant in pairs:
            if task.corpus is not None:
                texts.setdefault(task.task, set()).add(label(task.corpus, variant.text))
        table, note = make_table(pairs, places, all_results=all_results)
        results = cls(
            root=root,
            table=table,
            files=files,
            places=places,
            variants={str(variant): variant for variant in variants},
            texts={task: tuple(sorted(names, key=natural)) for task, names in texts.items()},
            tasks=tuple(tasks),
            all_results=all_results,
        )
        return results, note

    def select(
        self,
        corpora: Sequence[str] | None = None,
        variant: str | None = None,
        patterns: Mapping[str, Sequence[str] | None] | None = None,
    ) -> Results:
        """Return the results on some corpora, of one variant, and of some names.

        The column ``variant`` then says what still differs.

        Args:
            corpora: Names as in the table, or patterns of them; rows come in their order. Results that read no text are
                kept.
            variant: ``key=value, ...`` as in the table. Results that read no text need only the model's settings.
            patterns: Of the names in the columns ``model``, ``run``, ``task`` and ``metric``: a row has to match one of
                each column's.

        Raises:
            LmsatError: For a corpus, a variant or a pattern that no result has.
        """
        if corpora is None and variant is None and not any(of is not None for of in (patterns or {}).values()):
            return self
        tasks: Sequence[TaskResult] = self.tasks
        for column, of_column in (patterns or {}).items():
            if of_column is not None:
                tasks = self._matching(tasks, column, of_column)
        if corpora is not None:
            corpora = matching((task.corpus for task in tasks), "corpus", corpora)
            tasks = [task for task in tasks if task.corpus is None or task.corpus in corpora]
        if variant is not None:
            tasks = choose_variant(tasks, variant)
            if not any(task.metrics for task in tasks):
                variants = ", ".join(f"'{name}'" for name in sorted(self.variants, key=natural) if name)
                advice = f"give one of {variants}" if variants else "leave it out, since there are none"
                raise LmsatError(f"nothing in {self.root} has --variant '{variant}': {advice}")
        chosen, _ = self._of_tasks(self.root, self.files, tasks, places=self.places, all_results=self.all_results)
        if corpora is None:
            return replace(chosen, corpora=self.corpora)
        table = chosen.table
        if len(corpora) > 1:
            order = {name: index for index, name in enumerate(corpora)}
            table = table.sort_values("corpus", key=lambda column: column.map(order), kind="stable")
        return replace(chosen, table=table, corpora=tuple(corpora))

    def _matching(self, tasks: Sequence[TaskResult], column: str, patterns: Sequence[str]) -> list[TaskResult]:
        """Return the results that match a pattern, with the metrics that do."""
        if column == "metric":
            chosen = matching((entry[0] for task in tasks for entry in task.metrics), column, patterns)
            kept = [replace(task, metrics=[entry for entry in task.metrics if entry[0] in chosen]) for task in tasks]
            return [task for task in kept if task.metrics]
        names = [self._name(task, column) for task in tasks]
        chosen = matching(names, column, patterns)
        return [task for task, name in zip(tasks, names, strict=True) if name in chosen]

    def _name(self, task: TaskResult, column: str) -> str | None:
        if column == "run":
            return self.places[task.origin.path].progress.run
        return task.origin.model if column == "model" else task.task

    def check_one_text(self, task: str | None = None) -> None:
        """Raise `LmsatError` where a task's results, by default all, are on several texts, which do not compare."""
        by_task = self.texts.values() if task is None else [self.texts.get(task, ())]
        texts = sorted(set(chain.from_iterable(by_task)), key=natural)
        if len(texts) > 1:
            corpora = {result.corpus for result in self.tasks if task in (None, result.task)} - {None}
            option = "--corpus NAME" if len(corpora) > 1 else "--variant KEY=VALUE"
            held = f"results of {task}" if task else "results"
            raise LmsatError(
                f"{self.root} holds {held} on {', '.join(texts)}, which do not compare: choose one with {option}"
            )

    def model_variant(self, variant: str | None) -> str | None:
        """Return the part of a row's variant that belongs to the model and not to the text; None where it has none."""
        return self.variants[variant].model or None if isinstance(variant, str) else None

    def arrays(self, path: str, task: str, *prefixes: str) -> dict[str, np.ndarray]:
        """Return the arrays of a task in the file that the table calls ``path``, by name; see `ResultFile.arrays`.

        ``prefixes`` are beginnings of the names that are wanted, such as ``loss/by_document``.
        """
        if (reason := as_dict(self.notes(path, task).get("diverged")).get(task)) is not None:
            raise LmsatError(reason)
        return self.files[path].arrays(task, prefixes)

    def notes(self, path: str, task: str) -> dict[str, Any]:
        """Return what lmsat noted of one result: checkpoint, corpus, versions; empty if it noted nothing."""
        return self.files[path].notes(task)


def load_results(
    path: str | Path | Sequence[str | Path],
    *,
    all_results: bool = False,
    step_pattern: str | None = None,
    tokens_per_step: int | None = None,
) -> pd.DataFrame:
    """Return the values in the result files of a folder, of any lm-eval or of another tool, one a row.

    Of a value measured several times the newest is kept. Where one model, task and corpus have results of different
    settings, the column ``variant`` says in what they differ, such as ``head_rank=32`` or ``max_tokens=10000``. Other
    files are passed over, broken ones with a warning. `Results.read` adds arrays and provenance to the same table.

    Args:
        path: A folder, which is searched with its subfolders, or one file; or several of them.
        all_results: Keep older measurements of the same value, too.
        step_pattern: A regular expression with some of the groups ``run``, ``stage``, ``step``, ``tokens`` and
            ``words``, for names of your own. What it finds stands before what a sweep noted.
        tokens_per_step: Tokens in a training step, where names state the step alone.

    Returns:
        The columns `lmsat_plugin.results.table.COLUMNS`, sorted by model, corpus, task and so on up to the step.
        ``n_params`` is what the model's name says where ``n_params_from_name`` is true.
        Counts are nullable integers, ``date`` is when the evaluation began, in UTC.

    Raises:
        LmsatError: If there is no result, or for a bad pattern.

    Example:
        >>> table = lmsat_plugin.load_results("results")
        >>> table[table.metric == "loss"].groupby("model").value.last().index.tolist()
        ['large', 'small']
    """
    cache = _cache(path, step_pattern, tokens_per_step)
    table = cache.read_table(all_results=all_results)
    if table is None:
        results = Results.of_cache(cache, all_results=all_results)
        table = results.table
        if not results.warnings:
            cache.write_table(table, all_results=all_results, note=results.note)
    return table


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Search nothing for cycles while a tree's objects are made, which all stay: that takes a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _cache(path: str | Path | Sequence[str | Path], step_pattern: str | None, tokens_per_step: int | None) -> Cache:
    if not isinstance(path, str | Path | Sequence):
        raise LmsatError(
            f"{type(path).__name__} is no kind of path: give the folder of results as text or a Path, or several"
        )
    paths = [path] if isinstance(path, str | Path) else path
    if not paths:
        raise LmsatError("no folder is given: give one with lm-eval's result files")
    return Cache([user_path(each) for each in paths], _naming(step_pattern, tokens_per_step))


def _naming(step_pattern: str | None, tokens_per_step: int | None) -> Naming:
    if tokens_per_step is not None and tokens_per_step < 1:
        raise LmsatError(f"tokens_per_step={tokens_per_step} is not a number of tokens: give at least 1")
    return Naming(compile_pattern(step_pattern) if step_pattern else None, tokens_per_step)


def _without_superseded(results: list[TaskResult]) -> list[TaskResult]:
    gone = {
        (str(PurePosixPath(origin.path).with_name(PurePosixPath(file).name)), task)
        for origin in {id(result.origin): result.origin for result in results}.values()
        for file, tasks in origin.supersedes.items()
        if PurePosixPath(file).name not in ("", "..", PurePosixPath(origin.path).name)
        for task in tasks
    }
    return [result for result in results if (result.origin.path, result.task) not in gone]
