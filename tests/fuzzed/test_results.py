"""A fuzzer of what sweeps and lm-eval write: result files, arrays, records of failures, in a tree that readers read.

As in test_inputs: the answer is right or one sentence. What is right is said by Python's own JSON and by NumPy.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_inputs import changed, changed_tensors, cut, fresh, fuzzed, run, values, with_depth
from hypothesis import given
from hypothesis import strategies as st
from other_tools_files import lighteval, neox
from result_files import new, old, ours

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import Results
from lmsat_plugin.results.array_files import pack_arrays
from lmsat_plugin.results.digests import with_digest
from lmsat_plugin.sweeps.stored import canonical, read_stored

CHECKPOINT = {"model": "m", "revision": "step8", "commit": "c" * 40, "step": 8, "identity": "i"}
DOCUMENTS = [
    ours(2.5, checkpoint=CHECKPOINT),
    new({"piqa": {"alias": "piqa", "acc,none": 0.5, "acc_stderr,none": 0.01}, "arc": {"acc,none": 0.25}}),
    old(),
]
OTHERS = [lighteval(), neox()]
"""Of other tools, in files of the same names."""
GOOD = {"model": "good", "step": 4, "value": 3.25}
IDENTITY = {"task": "lmsat_loss", "version": 1, "weights": "i", "settings": {}, "model_args": {}}
FAILURE = {
    "checkpoint": CHECKPOINT,
    "run": "r",
    "date": 1.8e9,
    "failures": [{"identity": IDENTITY, "error": "diverged: the loss is nan", "kind": "diverged"}],
    "software": {"torch": "2.0"},
}
ARRAYS = {
    "loss/by_document": np.array([2.0, 4.0, 9.0]),
    "loss/by_document_tokens": np.array([1, 1, 2]),
    "loss/by_position": np.linspace(3, 2, 7, dtype=np.float32),
}

TYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8"}


def rows_beside(folder: Path, contents: list[bytes]) -> list[list[dict[str, Any]]]:
    """Return the rows of files of these contents, by file, in a folder that also holds a good result."""
    good = ours(GOOD["value"], checkpoint={"model": "good", "revision": "step4", "commit": "g" * 40, "step": 4})
    (folder / "results_good.json").write_text(json.dumps(good), "utf-8")
    for index, content in enumerate(contents):
        (folder / str(index)).mkdir()
        (folder / str(index) / "results_other.json").write_bytes(content)
    code, out = run(["results", str(folder), "--all", "--format", "json"])
    assert code == 0
    rows = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [{key: row[key] for key in GOOD} for row in rows if row["path"] == "results_good.json"] == [GOOD]
    return [[row for row in rows if row["path"] == f"{index}/results_other.json"] for index in range(len(contents))]


def is_plain(*names: Any) -> bool:
    return all(isinstance(name, str) and re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", name) for name in names)


def values_in(document: Any) -> dict[tuple[str, str, str], float] | None:
    """Return the values in a result file whose names are plain, by task, metric and filter; None if it is none."""
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, dict) or not all(isinstance(entry, dict) for entry in results.values()):
        return None
    groups = document.get("groups")
    found = {}
    for task, entry in {**(groups if isinstance(groups, dict) else {}), **results}.items():
        for key, value in entry.items() if isinstance(entry, dict) else ():
            metric, _, chosen = key.partition(",")
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and is_plain(task, metric, chosen or "none") and not metric.endswith("_stderr"):
                found[task, metric, chosen or "none"] = value
    return {names: value for names, value in found.items() if names[1] not in ("alias", "name", "sample_len")}


def is_same(shown: float | None, held: float) -> bool:
    try:
        held = float(held)
    except OverflowError:
        held = math.inf
    return shown is None if not math.isfinite(held) else shown == held


def check_rows(rows: list[dict[str, Any]], document: Any) -> None:
    """Check that exactly the values that a file holds are shown, and its checkpoint as the file states it."""
    held = values_in(document)
    shown = {(row["task"], row["metric"], row["filter"]): row for row in rows}
    plain = {names: row for names, row in shown.items() if is_plain(*names)}
    assert plain.keys() <= (held or {}).keys()
    for names, row in plain.items():
        assert is_same(row["value"], held[names])
    notes = document.get("config", {}) if isinstance(document, dict) else {}
    notes = notes.get("lmsat") if isinstance(notes, dict) else None
    own = isinstance(notes, dict) and any(key in notes for key in ("identities", "file_sha256", "sha256"))
    if held and not own:
        assert held.keys() <= shown.keys()
    checkpoint = notes.get("checkpoint") if isinstance(notes, dict) else None
    step = checkpoint.get("step") if isinstance(checkpoint, dict) else None
    if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**63:
        assert {row["step"] for row in rows} <= {step}


@fuzzed(20, files=5)
@given(documents=st.lists(st.sampled_from(DOCUMENTS).flatmap(changed), min_size=5, max_size=5))
def test_result_files(folder, documents):
    """A result beside is shown as it is, and exactly the values are shown that are in the files."""
    contents = [json.dumps(document).encode("utf-8", "surrogatepass") for document in documents]
    for rows, content in zip(rows_beside(fresh(folder), contents), contents, strict=True):
        check_rows(rows, json.loads(content))


@fuzzed(10, files=5)
@given(data=st.data())
def test_cut_and_deeply_nested_result_files(folder, data):
    """What Python still reads is shown as it stands there."""
    contents = []
    for document in data.draw(st.lists(st.sampled_from(DOCUMENTS), min_size=5, max_size=5)):
        text = json.dumps(document).encode()
        contents.append(data.draw(cut(text)) if data.draw(st.booleans()) else with_depth(text, data.draw))
    for rows, content in zip(rows_beside(fresh(folder), contents), contents, strict=True):
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            assert not rows
        else:
            if b"[[[" not in content and b'{"a": {' not in content:
                check_rows(rows, document)


@st.composite
def sweeps(draw: Any) -> dict[str, bytes]:
    """Return files of a sweep's folder, some of them changed, with digests that hold or not."""
    files: dict[str, bytes] = {}
    document = ours(3.75, checkpoint=CHECKPOINT, identities=[IDENTITY], tasks={"lmsat_loss": "loss"}, run="r")
    document["group_subtasks"] = {"group": ["lmsat_loss"]}
    notes = document["config"]["lmsat"]
    notes["supersedes"] = {"results_0.json": ["lmsat_loss"]}
    data, binding = pack_arrays(ARRAYS)
    notes.update(
        arrays="arrays_1.safetensors", samples_sha256={"samples_lmsat_loss_1.jsonl": hashlib.sha256(b"s").hexdigest()}
    )
    notes.update(binding)
    files["arrays_1.safetensors"], files["samples_lmsat_loss_1.jsonl"] = data, b"s"
    which = draw(st.sampled_from(["result", "arrays", "failures", "nothing"]))
    if which == "result":
        document = draw(changed(document))
    elif which == "arrays":
        files["arrays_1.safetensors"] = draw(changed_tensors(data))
    whole = document["config"].get("lmsat") if isinstance(document.get("config"), dict) else None
    if isinstance(whole, dict) and draw(st.booleans()):
        try:
            files["results_1.json"] = with_digest(document)
        except RecursionError:
            files["results_1.json"] = b"{}"
    else:
        files["results_1.json"] = json.dumps(document).encode("utf-8", "surrogatepass")
    if which == "failures" or draw(st.booleans()):
        record = draw(changed(FAILURE)) if which == "failures" else copy.deepcopy(FAILURE)
        if draw(st.booleans()):
            text = json.dumps(record, sort_keys=True).encode()
            record = {**record, "sha256": hashlib.sha256(text).hexdigest()} if isinstance(record, dict) else record
        files["failures.json"] = json.dumps(record, indent=2).encode()
        if draw(st.integers(0, 3)) == 0:
            files["failures.json"] = with_depth(files["failures.json"], draw)
    return files


@fuzzed(15, files=3)
@given(folders=st.lists(sweeps(), min_size=3, max_size=3))
def test_folders_of_sweeps(folder, folders):
    """Readers, verify and the next sweep find one sentence at most; a value is shown if its file holds its digest."""
    root = fresh(folder)
    (root / ".lmsat").mkdir()
    places = [root / f"m{index}" / "step8" for index in range(len(folders))]
    for place, files in zip(places, folders, strict=True):
        place.mkdir(parents=True)
        for name, content in files.items():
            (place / name).write_bytes(content)
    code, out = run(["results", str(root), "--all", "--format", "json"])
    rows = json.loads(out) if code == 0 else []
    code, out = run(["verify", str(root), "--json"])
    problems = json.loads(out)["problems"]
    assert code == bool(problems)
    named = {Path(problem["path"]) for problem in problems}
    for place, files in zip(places, folders, strict=True):
        stored = read_stored(place)
        assert {path.relative_to(root) for path in stored.damaged} <= named
        is_whole = b'"file_sha256"' in files["results_1.json"]
        document = json.loads(files["results_1.json"]) if is_whole else None
        mine = [row for row in rows if row["path"] == f"{place.relative_to(root)}/results_1.json"]
        if mine:
            assert is_whole
            check_rows(mine, document)
        if canonical(IDENTITY) in stored.done:
            assert is_whole
            whole = files["arrays_1.safetensors"] == pack_arrays(ARRAYS)[0]
            assert whole or "arrays" not in document["config"]["lmsat"]


@fuzzed(15, files=4)
@given(data=st.data())
def test_arrays(folder, data):
    """Arrays that are given are those that the file holds, and those that the result names where it names any."""
    root = fresh(folder)
    whole, binding = pack_arrays(ARRAYS)
    drawn = []
    for index in range(4):
        content, bound = data.draw(changed_tensors(whole)), data.draw(st.booleans())
        stated = {"arrays": f"{index}.safetensors", **(binding if bound else {})}
        loss = 3.75 if data.draw(st.booleans()) else data.draw(st.floats())
        document = ours(loss, checkpoint={**CHECKPOINT, "model": f"m{index}"}, **stated)
        (root / f"results_{index}.json").write_text(json.dumps(document), "utf-8")
        (root / f"{index}.safetensors").write_bytes(content)
        drawn.append((content, bound, loss))
    results = Results.read(root)
    for index, (content, bound, loss) in enumerate(drawn):
        try:
            arrays = results.arrays(f"results_{index}.json", "lmsat_loss", "")
        except LmsatError:
            assert content != whole or not abs(loss - 3.75) < 1e-5
            continue
        assert content == whole or not bound
        (size,) = struct.unpack("<Q", content[:8])
        for name, entry in json.loads(content[8 : 8 + size]).items():
            if name != "__metadata__" and entry["dtype"] in TYPES:
                start, end = entry["data_offsets"]
                own = np.frombuffer(content[8 + size :][start:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
                assert np.array_equal(arrays[name], own, equal_nan=True)


@fuzzed(7)
@given(
    documents=st.lists(st.sampled_from([*DOCUMENTS[:2], *OTHERS]).flatmap(changed), min_size=1, max_size=4),
    command=st.sampled_from(
        ["saturation", "emergence", "leaderboard", "efficiency", "context", "bottleneck", "results", "verify"]
    ),
)
def test_analyses_of_results(folder, documents, command):
    folder = fresh(folder)
    for index, document in enumerate([*DOCUMENTS, *OTHERS, *documents]):
        (folder / f"results_{index}.json").write_text(json.dumps(document), "utf-8")
    code, out = run([command, str(folder), "--json" if command != "results" else "--format=json"])
    if code == 0:
        json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@fuzzed(18)
@given(record=changed(FAILURE) | values())
def test_records_of_failures_by_others(folder, record):
    """Files of this name that no sweep wrote stop nothing, in a folder of results that no sweep wrote."""
    root = fresh(folder)
    (root / "failures.json").write_text(json.dumps(record), "utf-8")
    rows_beside(root, [])
