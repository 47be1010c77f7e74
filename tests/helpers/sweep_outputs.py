"""What a sweep has left in its output folder."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

from safetensors.numpy import load_file

from lmsat_plugin.results.digests import with_digest


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


def content_of(output: Path) -> dict[str, object]:
    """Return what is stored, but for dates: each result by its identity, what failed, and what was put aside.

    A result that is there twice, where none replaces the other, has two keys. Files that are cut are counted.
    """
    content: dict[str, object] = {}
    documents = {}
    for file in output.rglob("results_*.json"):
        with suppress(ValueError):
            documents[str(file.relative_to(output))] = json.loads(file.read_text())
    content["cut"] = len(list(output.rglob("results_*.json"))) - len(documents)
    replaced = {
        (str(Path(path).with_name(name)), task)
        for path, document in documents.items()
        for name, tasks in document["config"]["lmsat"].get("supersedes", {}).items()
        for task in tasks
    }
    for path, document in documents.items():
        notes, file = document["config"]["lmsat"], output / path
        arrays = load_file(a) if (a := file.with_name(notes.get("arrays", "-"))).exists() else {}
        # They may name the folder itself, and hash what names it.
        samples = [
            re.sub(r'_hash": "[0-9a-f]+"', "", p.read_text().replace(str(output), ""))
            for name in notes.get("samples_sha256", {})
            if (p := file.with_name(name)).exists()
        ]
        for identity in notes["identities"]:
            if (path, identity["task"]) not in replaced:
                key = f"{Path(path).parent} {json.dumps(identity, sort_keys=True)}".replace(str(output), "")
                content[key if key not in content else f"{path} again: {key}"] = {
                    "values": document["results"].get(identity["task"]),
                    "arrays": {name: array.tolist() for name, array in arrays.items()},
                    "samples": samples,
                    "checkpoint": notes["checkpoint"],
                }
    for path in output.rglob("failures.json"):
        record = json.loads(path.read_text())
        content[str(path.relative_to(output))] = record["checkpoint"], record["failures"]
    aside = sorted(path.relative_to(output) for path in output.rglob("*.quarantined*"))
    return {**content, "quarantined": [re.sub(r"_\d{4}-[-T\d.]*", "_DATE", str(path)) for path in aside]}


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def age(output: Path) -> None:
    """Make results look as those of versions that knew no setting ``prefix``."""
    for path in output.rglob("results_*.json"):
        document = json.loads(path.read_text())
        notes = document["config"]["lmsat"]
        notes["checkpoint"].pop("auto_prefix", None)
        assert notes["corpus"].pop("prefix", "document") == "document"
        for probe in notes["probes"].values():
            probe.pop("reads_windows")
        notes.pop("sha256", None)
        path.write_bytes(with_digest(document))
