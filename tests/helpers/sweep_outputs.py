"""What a sweep has left in its output folder."""

from __future__ import annotations

import json
from pathlib import Path


def files_of(output: Path) -> dict[str, dict]:
    """Return all result files by path below the output folder."""
    return {str(path.relative_to(output)): json.loads(path.read_text()) for path in output.rglob("results_*.json")}


def values_of(output: Path) -> dict[tuple, float]:
    """Return each value by checkpoint, task and metric; a value that is there twice is an error."""
    values: dict[tuple, float] = {}
    for path, document in files_of(output).items():
        for task, metrics in document["results"].items():
            for metric, value in metrics.items():
                if isinstance(value, float):
                    key = (*Path(path).parts[:-1], task, metric)
                    assert key not in values, key
                    values[key] = value
    return values


def strays(output: Path) -> list[Path]:
    """Return what is there only while a sweep is at work."""
    return [path for path in output.rglob("*") if path.suffix == ".part" or path.parent.name == "claims"]
