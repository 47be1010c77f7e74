"""Records of Every Eval Ever, of schemas 0.2 and 0.3, those that `lmsat export` writes among them.

The layout is that of the project's ``eval.schema.json`` and of records of its datastore and tests
(https://github.com/evaleval/every_eval_ever): ``model_info`` has the model, and ``evaluation_results`` has a metric
of a task each, with ``evaluation_name``, ``metric_config`` and ``score_details``.
"""

from __future__ import annotations

from typing import Any

from lmsat_plugin.results.json_values import as_dict, as_dicts, as_integer, as_number, as_text
from lmsat_plugin.results.other_tools.documents import Document, Score, date_of, documents

_OWN = "lmsat/"
_UNDIRECTED = ("not_applicable", "unknown")
_COUNTS = ("step", "tokens")
_SIZES = ("n_params", "n_params_non_embedding", "vocab_size")


def is_record(content: dict[str, Any]) -> bool:
    """Return whether a JSON file is a record."""
    return isinstance(content.get("evaluation_results"), list) and isinstance(content.get("model_info"), dict)


def read_record(content: dict[str, Any]) -> list[Document]:
    """Return what a record holds. Metrics that have no name keep their identifier."""
    about = as_dict(content["model_info"])
    details = as_dict(about.get("additional_details"))
    counts = {key: as_integer(_number(details.get(key))) for key in (*_COUNTS, *_SIZES)}
    is_own = (as_text(content.get("evaluation_id")) or "").startswith(_OWN)
    # A record names no run: the revision states it.
    checkpoint = {key: counts[key] for key in _COUNTS if counts[key] is not None}
    config = {
        "library": as_text(as_dict(content.get("eval_library")).get("name")) or "unknown",
        "model_args": {
            "pretrained": as_text(about.get("id")) or as_text(about.get("name")),
            "revision": as_text(details.get("revision")),
            "dtype": as_text(details.get("precision")),
        },
        "model_sha": as_text(details.get("commit")),
        "model_num_parameters": counts["n_params"],
        "sizes": {key: counts[key] for key in _SIZES},
    }
    return documents(
        (_score(one, is_own) for one in as_dicts(content["evaluation_results"])),
        config,
        date=_time(content.get("evaluation_timestamp")),
        checkpoint=checkpoint,
    )


def _score(one: dict[str, Any], is_own: bool) -> Score:
    metric, details = as_dict(one.get("metric_config")), as_dict(one.get("score_details"))
    parameters, uncertainty = as_dict(metric.get("metric_parameters")), as_dict(details.get("uncertainty"))
    task = as_text(one.get("evaluation_name")) or "unknown"
    name = as_text(metric.get("metric_name")) or as_text(metric.get("metric_id")) or "score"
    value = _number(details.get("score"))
    stderr = _number(as_dict(uncertainty.get("standard_error")).get("value"))
    lower = metric.get("lower_is_better")
    is_directed = as_dict(metric.get("additional_details")).get("polarity") not in _UNDIRECTED
    source = as_dict(one.get("source_data"))
    text = as_text(source.get("dataset_name"))
    return Score(
        task=task,
        values={} if value is None else {name: value},
        stderrs={} if stderr is None else {name: stderr},
        directions={name: not lower} if isinstance(lower, bool) and is_directed else {},
        shots=as_integer(_number(parameters.get("num_fewshot"))),
        samples=as_integer(_number(uncertainty.get("num_samples"))),
        filter=as_text(parameters.get("filter")) or "none",
        corpus=text if is_own and source.get("source_type") == "other" and text != task else None,
    )


def _number(value: Any) -> float | None:
    """Return a number, also one that is written as text, as details of records are."""
    if not isinstance(value, str):
        return as_number(value)
    try:
        return float(value)
    except ValueError:
        return None


def _time(value: Any) -> float | None:
    """Return a time in seconds since 1970 or of ISO 8601."""
    number = _number(value)
    text = as_text(value) or ""
    return date_of(text[:19].replace(" ", "T"), "%Y-%m-%dT%H:%M:%S") if number is None else number
