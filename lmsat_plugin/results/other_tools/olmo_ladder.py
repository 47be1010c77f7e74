"""OLMo's scaling ladder (Bhagia et al. 2024): the CSV files of its repository, and the table for two-step fits.

The layouts are those of ``src/scripts/paper/data/ladder-runs/190M-10xC.csv`` in allenai/OLMo-ladder, named after the
model, a row for each evaluation with columns such as ``_step``, ``throughput/total_tokens``,
``eval/downstream/arc_easy_val_rc_5shot_len_norm`` and ``eval/c4_en-validation/CrossEntropyLoss``; and of a table of
its figures with ``model``, ``size``, ``step``, ``task``, ``metric``, ``score``, ``chance``, ``c4_loss``, and
``loss``, the bits per byte of the correct answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lmsat_plugin.results.checkpoint_names import parse_count
from lmsat_plugin.results.json_values import as_integer, as_number, as_text
from lmsat_plugin.results.other_tools.documents import Document, Score, count_of, documents

_LONG = {"model", "size", "step", "loss", "c4_loss", "task", "metric", "score"}
_TOKENS = "throughput/total_tokens"
_TASK = re.compile(
    r"eval/downstream(?:_bpb|_soft|_soft_log)?/(?P<task>.+?)(?:_(?P<shots>\d+)shot)?"
    r"_(?P<metric>len_norm|acc|pmi_dc|f1|bpb|soft_log|soft)"
)
_TEXT = re.compile(r"eval/(?P<task>[^/]+)/CrossEntropyLoss")
_METRICS = {"len_norm": "acc_norm", "bpb": "bits_per_byte", "soft": "correct_choice_prob"}
"""lm-eval's and lmsat's names of the ladder's metrics; others keep theirs."""


def is_layout(columns: set[str]) -> bool:
    """Return whether a table with these columns has one of these layouts."""
    return columns >= _LONG or _is_log(columns)


def _is_log(columns: set[str]) -> bool:
    return bool({"_step", _TOKENS} & columns) and any(_TASK.fullmatch(name) for name in columns)


def read(rows: Iterable[dict[str, Any]], path: Path) -> Iterator[Document]:
    """Yield a document for each checkpoint."""
    rows = list(rows)
    if rows and rows[0].keys() >= _LONG:
        yield from _of_long_table(rows)
    else:
        for row in rows:
            yield from _of_log(row, path)


def _of_log(row: dict[str, Any], path: Path) -> list[Document]:
    """Return what a row of the log of a run holds."""
    model, step = path.stem, count_of(row, "_step")
    tokens = count_of(row, _TOKENS)
    scores = []
    for name, raw in row.items():
        value = as_number(raw)
        if value is None:
            continue
        if match := _TASK.fullmatch(name):
            metric = _METRICS.get(match["metric"], match["metric"])
            shots = as_integer(int(match["shots"])) if match["shots"] else None
            scores.append(Score(task=match["task"], values={metric: value}, shots=shots))
        elif match := _TEXT.fullmatch(name):
            scores.append(Score(task=match["task"], values={"loss": value}))
    place = f"step{step}" if step is not None else f"tokens{tokens}" if tokens is not None else "main"
    checkpoint = {"model": model, "revision": place, "step": step, "tokens": tokens}
    config = {"library": "OLMo", "model_args": {"pretrained": model, "revision": place}}
    return documents(scores, config, part=place, checkpoint=checkpoint) if scores else []


def _of_long_table(rows: list[dict[str, Any]]) -> Iterator[Document]:
    checkpoints: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        checkpoints.setdefault((str(row["model"]), str(row["step"])), []).append(row)
    for (model, _), own in checkpoints.items():
        step = count_of(own[0], "step")
        place = "main" if step is None else f"step{step}"
        config = {
            "library": "OLMo",
            "model_args": {"pretrained": model, "revision": place},
            "model_num_parameters": parse_count(as_text(own[0]["size"])),
        }
        checkpoint = {"model": model, "revision": place, "step": step}
        scores = [_of_row(row) for row in own]
        c4 = as_number(own[0]["c4_loss"])
        scores += [] if c4 is None else [Score(task="c4_en-validation", values={"loss": c4})]
        yield from documents(scores, config, part=f"{model} {place}", checkpoint=checkpoint)


def _of_row(row: dict[str, Any]) -> Score:
    values = {
        as_text(row["metric"]) or "score": row["score"],
        "bits_per_byte": row["loss"],
        "chance": row.get("chance"),
    }
    return Score(
        task=as_text(row["task"]) or "unknown",
        values={name: value for name, raw in values.items() if (value := as_number(raw)) is not None},
        samples=as_integer(as_number(row.get("n_samples"))),
    )
