"""Class `Results`: a tree of lm-eval result files of any version, with its table, its provenance and its arrays.

Imports neither lm_eval nor torch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.errors import DIVERGED, LmsatError
from lmsat_plugin.files import kind_of, read_file, user_path
from lmsat_plugin.results.checkpoint_names import compile_pattern
from lmsat_plugin.results.failures import FAILURES, diverged_results
from lmsat_plugin.results.json_values import as_dict
from lmsat_plugin.results.origins import Naming
from lmsat_plugin.results.reading import ResultFile, TaskResult, read_result_file
from lmsat_plugin.results.table import make_table
from lmsat_plugin.results.variants import Variant, choose_variant, find_variants, label

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

# JSON files that lie beside results, some of them large.
_NO_RESULTS = {
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"),
    *("special_tokens_map.json", "added_tokens.json", "trainer_state.json"),
    *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
}


@dataclass(frozen=True, eq=False)
class Results:
    """The results in a folder. Each file is parsed once; arrays are read when they are asked for."""

    root: Path
    """The folder, or the one file."""
    table: pd.DataFrame
    """See `lmsat_plugin.load_results`."""
    files: Mapping[str, ResultFile]
    """By their paths in the table."""
    variants: Mapping[str, Variant]
    """By their names in the table."""
    texts: Mapping[str, tuple[str, ...]]
    """The texts that each task was measured on: corpora, with the settings in which texts of one corpus differ."""
    tasks: tuple[TaskResult, ...]
    """What the table is made of."""
    all_results: bool = False
    """Whether the table holds older measurements of the same value, too."""
    corpora: tuple[str, ...] | None = None
    """The corpora that were chosen, in the order in which they were named; None if none was chosen."""

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        all_results: bool = False,
        step_pattern: str | None = None,
        tokens_per_step: int | None = None,
    ) -> Results:
        """Read a folder, which is searched with all it holds, or one file.

        Other files are passed over, broken result files with a warning. A checkpoint that a sweep recorded as diverged
        has NaN as its values. The arguments are those of `load_results`.
        Raises `LmsatError` if there is no result, or for a bad pattern.
        """
        if tokens_per_step is not None and tokens_per_step < 1:
            raise LmsatError(f"tokens_per_step={tokens_per_step} is not a number of tokens: give at least 1")
        naming = Naming(compile_pattern(step_pattern) if step_pattern else None, tokens_per_step)
        root = user_path(path)
        names = {path: path.name if path == root else path.relative_to(root).as_posix() for path in result_files(root)}
        read = [read_result_file(path, name, naming) for path, name in names.items() if path.name != FAILURES]
        measured = [file for file in read if file is not None]
        failures = ((path, name) for path, name in names.items() if path.name == FAILURES)
        diverged = (_diverged_results(path, name, naming, measured) for path, name in failures)
        files = {file.origin.path: file for file in (*measured, *diverged) if file is not None}
        tasks = [task for file in files.values() for task in file.tasks]
        if not all_results:
            tasks = _without_superseded(tasks)
        if not any(task.metrics for task in tasks):
            raise LmsatError(f"{root} holds no lm-eval results: give a folder with files that lm-eval wrote")
        return cls._of_tasks(root, files, tasks, all_results)

    @classmethod
    def _of_tasks(
        cls, root: Path, files: Mapping[str, ResultFile], tasks: Sequence[TaskResult], all_results: bool
    ) -> Results:
        variants = find_variants(tasks)
        pairs = list(zip(tasks, variants, strict=True))
        texts: dict[str, set[str]] = {}
        for task, variant in pairs:
            if task.corpus is not None:
                texts.setdefault(task.task, set()).add(label(task.corpus, variant.text))
        return cls(
            root=root,
            table=make_table(pairs, all_results=all_results),
            files=files,
            variants={str(variant): variant for variant in variants},
            texts={task: tuple(sorted(names)) for task, names in texts.items()},
            tasks=tuple(tasks),
            all_results=all_results,
        )

    def select(self, corpora: Sequence[str] | None = None, variant: str | None = None) -> Results:
        """Return the results on some corpora or of one variant. The column ``variant`` then says what still differs.

        Args:
            corpora: Names as in the table; rows come in their order. Results that read no text are kept.
            variant: ``key=value, ...`` as in the table. Results that read no text need only the model's settings.

        Raises:
            LmsatError: For a corpus or a variant that is not there.
        """
        tasks: Sequence[TaskResult] = self.tasks
        if corpora is not None:
            measured = sorted({task.corpus for task in tasks if task.corpus is not None})
            if missing := [name for name in corpora if name not in measured]:
                raise LmsatError(
                    f"nothing in {self.root} was measured on --corpus {missing[0]}: "
                    f"give some of {', '.join(measured) or 'none'}"
                )
            tasks = [task for task in tasks if task.corpus is None or task.corpus in corpora]
        if variant is not None:
            tasks = choose_variant(tasks, variant)
            if not any(task.metrics for task in tasks):
                variants = ", ".join(f"'{name}'" for name in sorted(self.variants) if name)
                raise LmsatError(f"nothing in {self.root} has --variant '{variant}': give one of {variants or 'none'}")
        chosen = self._of_tasks(self.root, self.files, tasks, self.all_results)
        if corpora is None:
            return replace(chosen, corpora=self.corpora)
        table = chosen.table
        if len(corpora) > 1:
            order = {name: index for index, name in enumerate(corpora)}
            table = table.sort_values("corpus", key=lambda column: column.map(order), kind="stable")
        return replace(chosen, table=table, corpora=tuple(corpora))

    def check_one_text(self, task: str | None = None) -> None:
        """Raise `LmsatError` where a task's results, by default all, are on several texts, which do not compare."""
        by_task = self.texts.values() if task is None else [self.texts.get(task, ())]
        texts = sorted(set(chain.from_iterable(by_task)))
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
    path: str | Path, *, all_results: bool = False, step_pattern: str | None = None, tokens_per_step: int | None = None
) -> pd.DataFrame:
    """Return the values in the lm-eval result files of a folder, of any version, one a row.

    Of a value measured several times the newest is kept. Where one model, task and corpus have results of different
    settings, the column ``variant`` says in what they differ, such as ``head_rank=32`` or ``max_tokens=10000``. Other
    files are passed over, broken ones with a warning. `Results.read` adds arrays and provenance to the same table.

    Args:
        path: A folder, which is searched with its subfolders, or one file.
        all_results: Keep older measurements of the same value, too.
        step_pattern: A regular expression with a group ``step`` or ``tokens``, for names of your own.
        tokens_per_step: Tokens in a training step, where names state the step alone.

    Returns:
        The columns `lmsat_plugin.results.table.COLUMNS`, sorted by model, corpus, task and so on up to the step.
        Counts are nullable integers, ``date`` is when the evaluation began, in UTC.

    Raises:
        LmsatError: If there is no result, or for a bad pattern.
    """
    return Results.read(path, all_results=all_results, step_pattern=step_pattern, tokens_per_step=tokens_per_step).table


def result_files(root: Path) -> list[Path]:
    """Return the files that may be results. Links are followed; no folder is entered twice."""
    kind = kind_of(root)
    if kind == "file":
        return [root]
    if kind != "folder":
        raise LmsatError(f"{root} is neither a folder nor a file: give a folder with lm-eval's result files")

    def warn(error: OSError) -> None:
        logger.warning("%s is skipped (%s): correct its rights", error.filename, error.strerror)

    results: list[Path] = []
    entered = set()
    for folder, folders, names in os.walk(root, onerror=warn, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = (Path(folder, name) for name in names if name.endswith(".json") and name not in _NO_RESULTS)
        results += [file for file in files if not file.name.startswith(".") and file.is_file()]
    return sorted(results, key=str)


def _diverged_results(path: Path, name: str, naming: Naming, measured: Sequence[ResultFile]) -> ResultFile | None:
    try:
        # Another tool's file of this name is passed over.
        return diverged_results(path, name, naming, measured) if DIVERGED.encode() in read_file(path) else None
    except OSError as error:
        logger.warning("%s is skipped (%s): correct its rights", path, error.strerror)
        return None
    except LmsatError as error:
        logger.warning("Left out: %s", error)
        return None


def _without_superseded(results: list[TaskResult]) -> list[TaskResult]:
    gone = {
        (str(PurePosixPath(origin.path).with_name(PurePosixPath(file).name)), task)
        for origin in {id(result.origin): result.origin for result in results}.values()
        for file, tasks in origin.supersedes.items()
        if PurePosixPath(file).name not in ("", "..", PurePosixPath(origin.path).name)
        for task in tasks
    }
    return [result for result in results if (result.origin.path, result.task) not in gone]
