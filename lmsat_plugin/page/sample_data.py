"""The questions that the page shows: what a model answered at its first, best, onset and last checkpoint.

The samples are those that lm-eval keeps beside its results (``--log_samples``).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.saturation import Saturation
from lmsat_plugin.metrics import is_measurement
from lmsat_plugin.outside_text import printable
from lmsat_plugin.page.numbers import number
from lmsat_plugin.results.json_values import as_list, as_text
from lmsat_plugin.results.question_scores import SamplesError, key_of, number_in, read_lines, samples_file

logger = logging.getLogger(__name__)

QUESTIONS = 20
"""The most questions of a checkpoint in a page."""
_MOST_TASKS, _MOST_MODELS = 5, 24
_MOST_BYTES = 200_000_000
"""Of the files of samples that are read for a page."""
_LETTERS, _OPTION_LETTERS, _MOST_OPTIONS = 400, 100, 8
_DIGITS = 3
_RIGHT = ("acc", "exact_match", "em", "acc_norm")
"""The metrics that say whether an answer is right."""


@dataclass(frozen=True, eq=False)
class SampleData:
    """What the page holds of samples."""

    questions: dict[str, list[list[Any]]] = field(default_factory=dict)
    """By task: the text, the options, and the right one's place, None where it is not known."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Of a task at a checkpoint: ``model, k, kind, task, file``, the ``shown`` questions, and, where the checkpoint
    ``before`` was asked the same ones, those that ``changed`` most. A question has its number, and for each checkpoint
    the options' probabilities or what the model wrote, and whether that was right."""
    without_samples: list[str] = field(default_factory=list)
    """The models whose samples are in their files alone, for want of room."""


@dataclass(frozen=True, eq=False)
class _Answer:
    """A question, and what a model answered."""

    text: str
    options: tuple[str, ...]
    right: int | None
    said: list[float | int | None] | str
    """The options' probabilities, or what was written."""
    is_right: bool | None
    score: float
    """What is compared between checkpoints: the right option's probability, or 1 for a right answer."""

    @property
    def in_page(self) -> list[Any]:
        """What the page has of the answer."""
        return [self.said, None if self.is_right is None else int(self.is_right)]


def sample_data(analyses: Analyses, checkpoints: Mapping[str, pd.DataFrame]) -> SampleData:
    """Return what the page shows of samples. ``checkpoints`` has a row for each of a model's, with its number ``k``."""
    data = SampleData()
    places: dict[str, dict[str, int]] = {}
    room = _MOST_BYTES
    models = 0
    for number_of_model, (model, by_task) in enumerate(_result_files(analyses, checkpoints).items()):
        found = {task: own for task, paths in by_task.items() if (own := _with_samples(analyses, task, paths))}
        if not found:
            continue
        if room <= 0 or models == _MOST_MODELS:
            data.without_samples.append(printable(model))
            continue
        models += 1
        verdict = next((result for result in analyses.saturation if result.label == model), None)
        for task, paths in list(found.items())[:_MOST_TASKS]:
            most = QUESTIONS // min(len(found), _MOST_TASKS)
            for k, kind in _chosen(list(paths), verdict, checkpoints[model]).items():
                before = max((other for other in paths if other < k), default=None)
                answers, file, size = _answers(analyses, paths[k], task)
                earlier, _, other_size = ({}, "", 0) if before is None else _answers(analyses, paths[before], task)
                room -= size + other_size
                if answers:
                    shown, changed = _questions(answers, earlier, most)
                    texts, numbers = data.questions.setdefault(printable(task), []), places.setdefault(task, {})
                    for key in (*shown, *changed):
                        if key not in numbers:
                            numbers[key] = len(texts)
                            texts.append([answers[key].text, answers[key].options, answers[key].right])
                    data.answers.append(
                        {
                            **{"model": number_of_model, "k": k, "kind": kind, "task": printable(task), "file": file},
                            "shown": [[numbers[key], *answers[key].in_page] for key in shown],
                            "before": before if earlier else None,
                            "changed": [
                                [numbers[key], *earlier[key].in_page, *answers[key].in_page] for key in changed
                            ],
                        }
                    )
    return data


def _result_files(analyses: Analyses, checkpoints: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, dict[int, str]]]:
    """Return the result file of each downstream task, by model, task, and the checkpoint's number."""
    keys = ["model", "revision", "at"]
    rows = analyses.table[~analyses.table.task.map(is_measurement).astype(bool)]
    rows = rows.drop_duplicates([*keys, "task"], keep="last")[[*keys, "task", "path"]]
    numbered = pd.concat(list(checkpoints.values()))[[*keys, "k"]]
    found: dict[str, dict[str, dict[int, str]]] = {model: {} for model in checkpoints}
    for model, task, path, k in rows.merge(numbered, on=keys)[["model", "task", "path", "k"]].itertuples(index=False):
        found[str(model)].setdefault(str(task), {})[int(k)] = path
    return found


def _with_samples(analyses: Analyses, task: str, paths: Mapping[int, str]) -> dict[int, str]:
    """Return the files beside which a task has samples, in the order of training; none where the last has none."""
    files = analyses.results.files
    if samples_file(files[paths[max(paths)]], task) is None:
        return {}
    return {k: paths[k] for k in sorted(paths) if samples_file(files[paths[k]], task) is not None}


def _chosen(numbers: Sequence[int], verdict: Saturation | None, checkpoints: pd.DataFrame) -> dict[int, str]:
    """Return the checkpoints whose questions are shown, and why."""
    chosen: dict[int, list[str]] = {numbers[0]: ["first"]}
    for kind, at in (("best", verdict and verdict.best_at), ("onset", verdict and verdict.onset_at)):
        if at is not None:
            for k in set(checkpoints.k[checkpoints["at"] == at]) & set(numbers):
                chosen.setdefault(int(k), []).append(kind)
    chosen.setdefault(numbers[-1], []).append("last")
    return {k: " and ".join(chosen[k]) for k in sorted(chosen)}


def _answers(analyses: Analyses, path: str, task: str) -> tuple[dict[str, _Answer], str, int]:
    """Return the answers in a task's file of samples by question, the file's name, and its size."""
    result = analyses.results.files[path]
    try:
        file = samples_file(result, task)
        lines = read_lines(result, task)
        size = file.stat().st_size if file is not None else 0
    except (SamplesError, OSError) as error:
        logger.warning("Left out: %s", error)
        return {}, "", 0
    if file is None or not lines:
        return {}, "", 0
    # Of several filters each has the same questions.
    return {key_of(sample): _answer(sample) for sample in next(iter(lines.values()))}, file.name, size


def _questions(own: Mapping[str, _Answer], earlier: Mapping[str, _Answer], most: int) -> tuple[list[str], list[str]]:
    """Return the first questions, and those whose score rose most, then those whose score fell most."""
    rises = {key: own[key].score - earlier[key].score for key in own if key in earlier}
    known = sorted((key for key, rise in rises.items() if math.isfinite(rise)), key=rises.__getitem__)
    each = most // 4
    better = [key for key in reversed(known[-each:]) if rises[key] > 0] if each else []
    worse = [key for key in known[:each] if rises[key] < 0]
    changed = [*better, *worse]
    return list(own)[: most - len(changed)], changed


def _answer(sample: Mapping[str, Any]) -> _Answer:
    requests, responses = _requests(sample.get("arguments")), as_list(sample.get("filtered_resps"))
    right = next((bool(one) for name in _RIGHT if (one := _score(sample.get(name))) is not None), None)
    score = math.nan if right is None else float(right)
    logs = [_score(one[0]) if isinstance(one, list) and one else None for one in responses]
    if requests and len(logs) >= len(requests) and all(log is not None for log in logs):
        options = [option for _, option in requests]
        known = np.array(logs[: len(options)], dtype=np.float64)
        # Of one continuation it is the probability itself, of several their shares.
        chances = np.exp(known) if len(options) == 1 else np.exp(known - np.logaddexp.reduce(known))
        target = _target(sample, options, int(chances.argmax()))
        if target is not None:
            score = float(chances[target])
        return _Answer(
            text=_short(requests[0][0], _LETTERS),
            options=tuple(_short(option, _OPTION_LETTERS) for option in options[:_MOST_OPTIONS]),
            right=target if target is None or target < _MOST_OPTIONS else None,
            said=[number(float(chance), _DIGITS) for chance in chances[:_MOST_OPTIONS]],
            is_right=right,
            score=score,
        )
    text = requests[0][0] if requests else as_text(sample.get("target")) or ""
    said = responses[0] if responses else ""
    said = said[0] if isinstance(said, list) and said else said
    target_text = as_text(sample.get("target"))
    return _Answer(
        text=_short(text, _LETTERS),
        options=() if target_text is None else (_short(target_text, _OPTION_LETTERS),),
        right=None if target_text is None else 0,
        said=_short(str(said), _OPTION_LETTERS),
        is_right=right,
        score=score,
    )


def _requests(arguments: Any) -> list[tuple[str, str]]:
    """Return what was asked, and the continuation that was scored, once for each request with the first one's prompt.

    lm-eval writes lists in memory, and objects in its files.
    """
    listed = list(arguments.values()) if isinstance(arguments, dict) else as_list(arguments)
    pairs = [list(one.values()) if isinstance(one, dict) else as_list(one) for one in listed]
    texts = [
        (str(pair[0]), str(pair[1]) if len(pair) > 1 and isinstance(pair[1], str) else "") for pair in pairs if pair
    ]
    # With acc_mutual_info the options are asked a second time, after an empty prompt.
    return [text for text in texts if text[0] == texts[0][0]]


def _target(sample: Mapping[str, Any], options: Sequence[str], likeliest: int) -> int | None:
    """Return the right option's place, which is stated as a number or as text; the only option is the right one.

    A place that would make ``acc`` another value is not the right one.
    """
    if len(options) == 1:
        return 0
    stated, texts = sample.get("target"), [option.strip() for option in options]
    text = str(stated).strip()
    places = [int(text)] if text.isdigit() and int(text) < len(options) else []
    if text in texts and not isinstance(stated, int):
        places.append(texts.index(text))
    acc = _score(sample.get("acc"))
    return next((place for place in places if acc is None or (place == likeliest) == bool(acc)), None)


def _score(value: Any) -> float | None:
    try:
        found = number_in(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _short(text: str, letters: int) -> str:
    """Return a text, or its end: of a long prompt the question is the last part."""
    shown = printable(text, keep="\n").strip()
    return shown if len(shown) <= letters else f"…{shown[-letters:]}"
