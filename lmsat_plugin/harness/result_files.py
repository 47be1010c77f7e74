"""One lm-eval result file, of any version, as plain records. Imports neither lm_eval nor torch."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmsat_plugin.errors import first_sentence
from lmsat_plugin.harness.loose_json import as_dict, as_integer, as_number, as_text, clean, first
from lmsat_plugin.harness.result_origins import read_origin, read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lmsat_plugin.harness.result_origins import Naming, Origin

logger = logging.getLogger(__name__)

_CORPUS_SETTINGS = ("max_tokens", "seed", "text_field", "limit", "window", "sha256")
_NO_METRICS = {"name", "alias", "sample_len", "sample_count", " ", ""}
_NOTHING = {"", "N/A", "NA", "None"}
# Files of the old schema do not say it.
_HIGHER_IS_BETTER = {
    **dict.fromkeys(("acc", "acc_norm", "exact_match", "f1", "em", "mcc"), True),
    **dict.fromkeys(("ppl", "perplexity", "word_perplexity", "byte_perplexity"), False),
    **dict.fromkeys(("bits_per_byte", "loss", "brier_score"), False),
}


@dataclass
class TaskResult:
    """One task of one file."""

    origin: Origin
    task: str
    corpus: str | None
    num_fewshot: int | None
    n_samples: int | None
    model_settings: dict[str, str]
    corpus_settings: dict[str, str]
    metrics: list[tuple[str, str, float, float, bool | None]]
    """Name, filter, value, standard error (NaN if unknown), whether higher is better."""
    model: str = field(init=False)
    """The model's name, and later what tells this result apart from others of the same model."""

    def __post_init__(self) -> None:
        self.model = self.origin.model


def read_result_file(path: Path, name: str, naming: Naming) -> list[TaskResult]:
    """Return the tasks of a file, none if it is no result. A broken one is skipped with a warning.

    ``name`` is its path as the table is to show it.
    """
    data = parse_result_file(path)
    if data is None:
        return []
    provenance = provenance_parts(data)
    origin = read_origin(data, provenance, path, clean(name), naming)
    results = {**as_dict(data.get("groups")), **data["results"]}
    found = [_task(data, provenance, origin, task, as_dict(entry)) for task, entry in results.items()]
    texts = [value for entry in results.values() for value in _texts(as_dict(entry))]
    if texts:
        logger.warning(
            "%s has the value '%.40s' where a number belongs, which is left out: restore or remove the file",
            path,
            texts[0],
        )
    return found


def parse_result_file(path: Path) -> dict[str, Any] | None:
    """Return what a result file holds; None, with a warning where one was meant, for any other file."""
    meant = path.name.startswith("results")
    try:
        text = path.read_bytes()
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


def _task(
    data: dict[str, Any], provenance: list[dict[str, Any]], origin: Origin, task: str, entry: dict[str, Any]
) -> TaskResult:
    config = as_dict(as_dict(data.get("configs")).get(task))
    shots = as_dict(data.get("n-shot")).get(task), config.get("num_fewshot")
    n_samples = as_dict(as_dict(data.get("n-samples")).get(task)).get("effective", entry.get("sample_len"))
    probe = task.removeprefix("lmsat_")
    parts = provenance if probe != task else []
    own = next((part for part in parts if probe in as_dict(part.get("probes"))), None)
    text: dict[str, Any] = {}
    settings: dict[str, str] = {}
    model_settings = origin.settings
    if own is not None:
        made = as_dict(as_dict(own.get("probes")).get(probe))
        # A probe of weights goes along with a corpus without reading it.
        text = as_dict(own.get("corpus")) if made.get("reads_corpus") is not False else {}
        n_samples = text.get("documents")
        settings = read_settings(
            {**{key: text.get(key) for key in _CORPUS_SETTINGS}, **as_dict(made.get("settings"))}
        )
    corpus = as_text(text.get("corpus"))
    if corpus is None:
        model_settings, settings = {**model_settings, **settings}, {}
    else:
        # The corpus' own settings say these.
        model_settings = {k: v for k, v in model_settings.items() if k not in ("limit", "max_length")}
    return TaskResult(
        origin=origin,
        task=clean(task),
        corpus=corpus,
        num_fewshot=first(*map(as_integer, (*shots, as_dict(data.get("config")).get("num_fewshot")))),
        n_samples=as_integer(n_samples),
        model_settings=model_settings,
        corpus_settings=settings,
        metrics=list(_metrics(entry, as_dict(as_dict(data.get("higher_is_better")).get(task)))),
    )


def _metrics(
    entry: dict[str, Any], directions: dict[str, Any]
) -> Iterator[tuple[str, str, float, float, bool | None]]:
    for key, raw in entry.items():
        metric, comma, filter_ = key.partition(",")
        value = as_number(raw)
        if value is None or metric in _NO_METRICS or metric.endswith("_stderr"):
            continue
        stderr = as_number(entry.get(f"{metric}_stderr{comma}{filter_}"))
        higher = directions.get(metric, _HIGHER_IS_BETTER.get(metric))
        yield (
            clean(metric),
            clean(filter_) or "none",
            value,
            math.nan if stderr is None else stderr,
            higher if isinstance(higher, bool) else None,
        )


def _texts(entry: dict[str, Any]) -> Iterator[str]:
    """Yield the texts that stand where a number belongs."""
    for key, value in entry.items():
        if isinstance(value, str) and key not in _NO_METRICS and value.strip() not in _NOTHING:
            yield value


def provenance_parts(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what lmsat noted, one dict for each corpus."""
    found = as_dict(data.get("config")).get("lmsat")
    return [part for part in (found if isinstance(found, list) else [found]) if isinstance(part, dict)]
