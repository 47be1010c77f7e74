"""A tree of lm-eval result files, of any version, as one tidy table. Imports neither lm_eval nor torch."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lmsat_plugin.checkpoint_names import compile_pattern
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.result_files import TaskResult, read_result_file
from lmsat_plugin.harness.result_origins import Naming

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd

logger = logging.getLogger(__name__)

COLUMNS = (
    *("model", "revision", "commit", "step", "tokens"),
    *("n_params", "n_params_non_embedding", "hidden_size", "vocab_size"),
    *("corpus", "task", "num_fewshot", "metric", "filter"),
    *("value", "stderr", "n_samples", "higher_is_better", "date", "path"),
)
_INTEGERS = {
    *("step", "tokens", "n_params", "n_params_non_embedding", "hidden_size", "vocab_size"),
    *("num_fewshot", "n_samples"),
}
_IDENTITY = ["model", "revision", "commit", "corpus", "task", "num_fewshot", "metric", "filter"]
_ORDER = ["model", "corpus", "task", "num_fewshot", "metric", "filter", "step", "revision"]
# What lies beside results, some of it large.
_NO_RESULTS = {
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"),
    *("special_tokens_map.json", "added_tokens.json", "trainer_state.json", "failures.json"),
    *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
}
# Checkpoints of one model may have been saved in several types, or measured from several places.
_BY_REVISION = {"dtype", "folder"}


def load_results(
    path: str | Path,
    *,
    all_results: bool = False,
    step_pattern: str | None = None,
    tokens_per_step: int | None = None,
) -> pd.DataFrame:
    """Return the values in a folder's lm-eval result files, of any version, one a row.

    Of a value measured several times the newest stands. Where one model, task and corpus have results of
    different settings, these stand beside the model's or the corpus' name: ``pythia-14m (head_rank=32)``,
    ``pile (max_tokens=10000)``. Files that are no results are passed over, broken ones with a warning.

    Args:
        path: A folder, which is searched with all it holds, or one file.
        all_results: Keep older measurements of the same value, too.
        step_pattern: A regular expression with a group ``step`` or ``tokens``, for names of one's own.
        tokens_per_step: Tokens in a step, where names state steps alone.

    Returns:
        The columns `COLUMNS`, sorted by model, corpus, task and so on up to the step. Counts are nullable
        integers, ``date`` is when the evaluation began, in UTC.

    Raises:
        LmsatError: If there is no result, or for a bad pattern.
    """
    if tokens_per_step is not None and tokens_per_step < 1:
        raise LmsatError(f"tokens_per_step={tokens_per_step} is not a number of tokens: give at least 1")
    naming = Naming(compile_pattern(step_pattern) if step_pattern else None, tokens_per_step)
    root = Path(path).expanduser()
    found = []
    for file in _result_files(root):
        name = file.name if file == root else file.relative_to(root).as_posix()
        found += read_result_file(file, name, naming)
    if not all_results:
        found = _without_superseded(found)
    if not any(result.metrics for result in found):
        raise LmsatError(f"{root} holds no lm-eval results: give a folder with files that lm-eval wrote")
    _tell_apart(found, "model")
    _tell_apart([result for result in found if result.corpus is not None], "corpus")
    # Last comes what was measured last.
    table = _table(found).sort_values(["date", "path"], na_position="first", kind="stable")
    if not all_results:
        table = table.drop_duplicates(_IDENTITY, keep="last")
    return table.sort_values(_ORDER, na_position="last", ignore_index=True)


def _result_files(root: Path) -> list[Path]:
    """Return the files that may be results. Links are followed, but no folder is entered twice."""
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise LmsatError(f"{root} is neither a folder nor a file: give a folder with lm-eval's result files")

    def warn(error: OSError) -> None:
        logger.warning("%s is skipped (%s): correct its rights", error.filename, error.strerror)

    found: list[Path] = []
    entered = set()
    for folder, folders, names in os.walk(root, onerror=warn, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = (Path(folder, name) for name in names if name.endswith(".json") and name not in _NO_RESULTS)
        found += [file for file in files if not file.name.startswith(".") and file.is_file()]
    return sorted(found, key=str)


def _without_superseded(results: list[TaskResult]) -> list[TaskResult]:
    gone = {
        (str(PurePosixPath(origin.path).with_name(PurePosixPath(file).name)), task)
        for origin in {id(result.origin): result.origin for result in results}.values()
        for file, tasks in origin.supersedes.items()
        if PurePosixPath(file).name not in ("", "..", PurePosixPath(origin.path).name)
        for task in tasks
    }
    return [result for result in results if (result.origin.path, result.task) not in gone]


def _tell_apart(results: Sequence[TaskResult], column: str) -> None:
    """Put the settings in which results of one model, task and corpus differ beside the name in ``column``.

    All results of the name are told apart alike, so that those of several tasks stay together.
    """
    groups: dict[tuple[Any, ...], list[TaskResult]] = defaultdict(list)
    for result in results:
        groups[result.origin.model, result.task, result.corpus].append(result)
    differing: dict[str, set[str]] = defaultdict(set)
    for group in groups.values():
        differing[getattr(group[0], column)].update(_differing(group, f"{column}_settings"))
    for result in results:
        keys = sorted(differing[name := getattr(result, column)])
        settings = getattr(result, f"{column}_settings")
        shown = [f"{key}={_short(key, settings[key])}" for key in keys if key in settings]
        if shown:
            setattr(result, column, f"{name} ({', '.join(shown)})")


def _differing(group: Iterable[TaskResult], attribute: str) -> Iterator[str]:
    """Yield the settings that have more than one value, or a value in some results only."""
    variants = {
        (tuple(sorted(getattr(result, attribute).items())), result.origin.revision) for result in group
    }
    if len({settings for settings, _ in variants}) == 1:
        return
    for key in {key for settings, _ in variants for key, _ in settings}:
        values: dict[Any, set[str | None]] = defaultdict(set)
        for settings, revision in variants:
            others = tuple(item for item in settings if item[0] != key)
            # The text differs, of course, where less of it was taken.
            scope = revision if key in _BY_REVISION else others if key == "sha256" else None
            values[scope].add(dict(settings).get(key))
        # Some results say nothing of the folder.
        silent = {None} if key == "folder" else set()
        if any(len(one - silent) > 1 for one in values.values()):
            yield key


def _short(key: str, value: str) -> str:
    return value[:8] if key == "sha256" or key.endswith("_sha") else value


def _table(results: Iterable[TaskResult]) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for result in results:
        origin, n = result.origin, len(result.metrics)
        shared = {
            "model": result.model,
            "revision": origin.revision,
            "commit": origin.commit,
            "step": origin.progress.step,
            "tokens": origin.progress.tokens,
            **origin.sizes,
            "corpus": result.corpus,
            "task": result.task,
            "num_fewshot": result.num_fewshot,
            "n_samples": result.n_samples,
            "date": origin.date,
            "path": origin.path,
        }
        for name, value in shared.items():
            columns[name] += [value] * n
        of_metrics = ("metric", "filter", "value", "stderr", "higher_is_better")
        for metric in result.metrics:
            for name, value in zip(of_metrics, metric, strict=True):
                columns[name].append(value)
    series = {}
    for name, values in columns.items():
        if name == "date":
            seconds = pd.Series(values, dtype="float64")
            dates = pd.to_datetime(seconds, unit="s", utc=True, errors="coerce")
            series[name] = dates.dt.as_unit("us")
        else:
            kind = {"value": "float64", "stderr": "float64", "higher_is_better": "boolean"}.get(
                name, "object"
            )
            series[name] = pd.Series(values, dtype="Int64" if name in _INTEGERS else kind)
    return pd.DataFrame(series)
