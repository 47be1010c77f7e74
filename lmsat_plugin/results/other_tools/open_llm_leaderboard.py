"""The Open LLM Leaderboard's tables of contents: ``open-llm-leaderboard/contents`` and that of the first leaderboard.

The layouts are those that the cards of the data sets list: a row for each model with ``fullname``, ``Model sha``,
``Precision``, ``#Params (B)`` and, in v2, scores such as ``BBH Raw`` (0 to 1; the columns without ``Raw`` are
rescaled to 0 to 100 above chance and left out), in v1 (``open-llm-leaderboard-old/contents``) ``ARC`` and others in
percent. The leaderboard's result files are lm-eval's (v2) and lighteval's (v1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lmsat_plugin.results.json_values import as_number, as_text
from lmsat_plugin.results.other_tools.documents import Document, Score, date_of, documents

_V2 = {
    "IFEval Raw": ("leaderboard_ifeval", "strict_acc", 0),
    "BBH Raw": ("leaderboard_bbh", "acc_norm", 3),
    "MATH Lvl 5 Raw": ("leaderboard_math_hard", "exact_match", 4),
    "GPQA Raw": ("leaderboard_gpqa", "acc_norm", 0),
    "MUSR Raw": ("leaderboard_musr", "acc_norm", 0),
    "MMLU-PRO Raw": ("leaderboard_mmlu_pro", "acc", 5),
}
_V1 = {
    "ARC": ("harness|arc:challenge", "acc_norm", 25),
    "HellaSwag": ("harness|hellaswag", "acc_norm", 10),
    "MMLU": ("harness|hendrycksTest", "acc", 5),
    "TruthfulQA": ("harness|truthfulqa:mc", "mc2", 0),
    "Winogrande": ("harness|winogrande", "acc", 5),
    "GSM8K": ("harness|gsm8k", "acc", 5),
}
"""Columns, and their task, metric and shots, as the leaderboard's result files call them."""
_DATES = ("Submission Date", "date")


def is_layout(columns: set[str]) -> bool:
    """Return whether a table with these columns has one of these layouts."""
    return "fullname" in columns and (_V2.keys() <= columns or _V1.keys() <= columns)


def read(rows: Iterable[dict[str, Any]], path: Path) -> Iterator[Document]:
    """Yield a document for each row that names a model."""
    del path
    for index, row in enumerate(rows):
        model = as_text(row["fullname"])
        if model is None:
            continue
        scores = [_score(row, name, about, 1) for name, about in _V2.items() if name in row]
        scores = scores or [_score(row, name, about, 100) for name, about in _V1.items()]
        billions = as_number(row.get("#Params (B)"))
        template = row.get("Chat Template")
        config = {
            "library": "lm_eval" if _V2.keys() <= row.keys() else "lighteval",
            "model_args": {
                "pretrained": model,
                "revision": "main",
                "dtype": as_text(row.get("Precision")),
                "chat_template": template if template is True else None,
            },
            "model_sha": as_text(row.get("Model sha")),
            "model_num_parameters": round(billions * 1e9) if billions is not None and 0 < billions < 1e6 else None,
        }
        dates = ((as_text(row.get(name)) or "")[:10] for name in _DATES)
        date = next((time for text in dates if (time := date_of(text, "%Y-%m-%d")) is not None), None)
        yield from documents(scores, config, date=date, part=str(index))


def _score(row: dict[str, Any], column: str, about: tuple[str, str, int], scale: int) -> Score:
    task, metric, shots = about
    value = as_number(row[column])
    return Score(task=task, values={} if value is None else {metric: value / scale}, shots=shots)
