"""The scores of single questions, which lm-eval keeps in files of samples beside its results (``--log_samples``)."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import kind_of, read_file, safe_name
from lmsat_plugin.results.json_values import as_dict, as_list, as_text
from lmsat_plugin.results.reading import ResultFile

PASSAGES = ("passage", "context", "story", "article", "paragraph", "document", "flores_passage")
"""The parts of a question's document that hold a text about which several questions may be asked."""
_NO_SCORES = {
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
    *("doc_hash", "prompt_hash", "target_hash"),
}
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d[-:]\d\d[-:]\d\d(?:\.\d+)?$")
"""The date at the end of a result file's name, which its files of samples share."""


class SamplesError(LmsatError):
    """Samples of a result that are missing, damaged, or not those that were measured; ``fault`` says which and how."""

    def __init__(self, fault: str) -> None:
        super().__init__(f"{fault}: restore them or measure again")
        self.fault = fault


@dataclass(frozen=True, eq=False)
class Questions:
    """The questions of a task under one filter, M of them, with their scores."""

    keys: tuple[str, ...]
    """What identifies each question: the hash of its document, and a number where a document comes again."""
    prompts: tuple[str, ...]
    """The hash of what the model read; empty where it is not stated."""
    passages: tuple[str, ...] | None
    """The text that each question is about, where several questions share one; None where none do."""
    scores: dict[str, np.ndarray]
    """By metric: a number for each question, shape [M], or a sum and what it is divided by, shape [M, 2]."""


def read_samples(path: Path, sha256: str | None = None) -> bytes:
    """Return the content of a file of samples. Raises `SamplesError` where it cannot be read or has another digest."""
    try:
        data = read_file(path)
    except FileNotFoundError:
        raise SamplesError(f"the samples {path} cannot be read (the file is missing)") from None
    except OSError as error:
        raise SamplesError(f"the samples {path} cannot be read ({error.strerror})") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise SamplesError(
            f"the samples {path} are not those that were measured (their digest is not the one in the result)"
        )
    return data


def samples_file(result: ResultFile, task: str) -> Path | None:
    """Return the file of a task's samples: the one that is there, else the one that the result names; None without."""
    stamp = _STAMP.search(result.path.stem)
    if stamp is None:
        return None
    names = [f"samples_{name}_{stamp[0]}.jsonl" for name in dict.fromkeys((task, safe_name(task)))]
    path = next((path for name in names if kind_of(path := result.path.parent / name) == "file"), None)
    if path is None:
        noted = next((name for name in names if name in _all_digests(result)), None)
        path = None if noted is None else result.path.parent / noted
    return path


def read_questions(result: ResultFile, task: str) -> dict[str, Questions]:
    """Return the questions of a task by filter; empty where a result has no samples.

    Raises `SamplesError` for samples that the result names and that are missing, and for damaged ones.
    """
    return {name: _questions(samples) for name, samples in read_lines(result, task).items()}


def read_lines(result: ResultFile, task: str) -> dict[str, list[dict[str, Any]]]:
    """Return the samples of a task as lm-eval wrote them, by filter; empty where a result has none.

    Raises `SamplesError` as `read_questions`.
    """
    path = samples_file(result, task)
    if path is None:
        return {}
    data = read_samples(path, _all_digests(result).get(path.name))
    lines: dict[str, list[dict[str, Any]]] = {}
    try:
        for line in data.splitlines():
            if line.strip():
                sample = as_dict(json.loads(line))
                lines.setdefault(as_text(sample.get("filter")) or "none", []).append(sample)
    except (ValueError, RecursionError) as error:
        raise SamplesError(f"the samples {path} cannot be read ({first_sentence(error)})") from error
    return lines


def _all_digests(result: ResultFile) -> dict[str, str]:
    return {name: digest for part in result.provenance for name, digest in _digests(part).items()}


def _digests(notes: dict[str, Any]) -> dict[str, str]:
    return {name: str(digest) for name, digest in as_dict(notes.get("samples_sha256")).items()}


def _questions(samples: Sequence[dict[str, Any]]) -> Questions:
    seen: Counter[str] = Counter()
    keys = []
    for sample in samples:
        key = key_of(sample)
        keys.append(f"{key} {seen[key]}" if seen[key] else key)
        seen[key] += 1
    names = [as_text(name) for name in as_list(samples[0].get("metrics"))] or [*samples[0].keys() - _NO_SCORES]
    scores = {name: _scores([sample.get(name) for sample in samples]) for name in names if name is not None}
    return Questions(
        keys=tuple(keys),
        prompts=tuple(as_text(sample.get("prompt_hash")) or "" for sample in samples),
        passages=_passages([as_dict(sample.get("doc")) for sample in samples], keys),
        scores={name: values for name, values in scores.items() if values is not None},
    )


def key_of(sample: dict[str, Any]) -> str:
    """Return what identifies a question. Versions before 0.4.2 state no hash of its document."""
    stated = as_text(sample.get("doc_hash"))
    if stated is not None:
        return stated
    about = sample["doc"] if "doc" in sample else sample.get("doc_id")
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _scores(values: Sequence[Any]) -> np.ndarray | None:
    """Return numbers, or pairs of numbers; None for anything else."""
    pairs = all(isinstance(value, list) and len(value) == 2 for value in values)
    try:
        if pairs:
            return np.array([[number_in(one) for one in value] for value in values], dtype=np.float64)
        return np.array([number_in(value) for value in values], dtype=np.float64)
    except ValueError:
        return None


def number_in(value: Any) -> float:
    """Return a number, which lm-eval writes as text where it is NumPy's. Raises ValueError for anything else."""
    if value in ("True", "False"):
        return float(value == "True")
    if isinstance(value, bool | int | float | str):
        return float(value)
    raise ValueError(f"{value!r:.40} is no number")


def _passages(docs: Sequence[dict[str, Any]], keys: Sequence[str]) -> tuple[str, ...] | None:
    """Return the passage of each question; a question without one is alone.

    What all questions share is an instruction and no passage.
    """
    for name in PASSAGES:
        texts = [json.dumps(doc[name]) if doc.get(name) else key for doc, key in zip(docs, keys, strict=True)]
        if 1 < len(set(texts)) < len(texts):
            return tuple(texts)
    return None
