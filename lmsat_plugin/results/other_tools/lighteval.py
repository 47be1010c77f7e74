"""lighteval's result files, and those of the first Open LLM Leaderboard, which it wrote.

The layout is that of lighteval's ``EvaluationTracker`` and of its documentation's example ("Saving and reading
results"), and of files of ``open-llm-leaderboard-old/results``: ``config_general`` has the model, ``results`` the
values by ``suite|task|shots`` (later ``suite|task|shots|0``, now ``task|shots``), with the row ``all`` and rows
``task:_average|shots`` that are averages, and ``config_tasks`` has the tasks' settings, as dicts or as text.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lmsat_plugin.results.json_values import as_dict, as_dicts, as_integer, as_number, as_text
from lmsat_plugin.results.other_tools.documents import Document, Score, date_in_name, documents

_AVERAGE = ":_average"


def is_lightevals(content: dict[str, Any]) -> bool:
    """Return whether a result file is of lighteval."""
    return isinstance(content.get("config_general"), dict)


def read_lighteval(content: dict[str, Any], path: Path) -> list[Document]:
    """Return what a file of lighteval holds. Tasks keep lighteval's names, without the shots."""
    general = as_dict(content.get("config_general"))
    model = as_dict(general.get("model_config"))
    tasks = as_dict(content.get("config_tasks"))
    config = {
        "library": "lighteval",
        "model_args": {
            "pretrained": as_text(general.get("model_name")) or as_text(model.get("model_name")),
            "revision": as_text(model.get("revision")),
        },
        "model_sha": as_text(general.get("model_sha")),
        "model_dtype": as_text(general.get("model_dtype")) or as_text(model.get("dtype")),
        "limit": as_integer(general.get("max_samples")),
    }
    scores = [_score(name, as_dict(entry), tasks) for name, entry in content["results"].items() if _is_task(name)]
    return documents(scores, config, date=date_in_name(path.name))


def _is_task(name: str) -> bool:
    return name != "all" and _AVERAGE not in name


def _score(name: str, entry: dict[str, Any], tasks: dict[str, Any]) -> Score:
    task, shots = _split(name)
    about = as_dict(tasks.get(name) or tasks.get(task))
    numbers = {key: value for key, raw in entry.items() if (value := as_number(raw)) is not None}
    # Older files call the list of metrics "metric".
    metrics = as_dicts(about.get("metrics") or about.get("metric") or [])
    directions = {as_text(one.get("metric_name")): one.get("higher_is_better") for one in metrics}
    return Score(
        task=task,
        values={key: value for key, value in numbers.items() if not key.endswith("_stderr")},
        stderrs={
            key.removesuffix("_stderr"): value
            for key, value in numbers.items()
            if key.endswith("_stderr") and not math.isnan(value)
        },
        directions={key: value for key, value in directions.items() if key and isinstance(value, bool)},
        shots=shots,
        samples=as_integer(about.get("effective_num_docs")),
    )


def _split(name: str) -> tuple[str, int | None]:
    """Return the task and the shots of ``suite|task|shots``, ``suite|task|shots|truncates`` or ``task|shots``."""
    parts = name.split("|")
    numbers = [index for index, part in enumerate(parts) if index and part.isascii() and part.isdigit()]
    if not numbers:
        return name, None
    return "|".join(parts[: numbers[0]]), as_integer(int(parts[numbers[0]]))
