"""A fuzzer of files in other tools' layouts, beside a good result: each ends as rows or as one sentence."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import pandas as pd
from hostile_inputs import changed, cut, fresh, fuzzed, run
from hypothesis import given
from hypothesis import strategies as st
from other_tools_files import (
    NEOX_NAME,
    contents_v1,
    contents_v2,
    datadecide,
    ladder_log,
    ladder_table,
    lighteval,
    neox,
    olmes_short,
    olmes_task,
    record,
)
from result_files import ours

FILES: dict[str, Any] = {
    "results_2024-04-02T10-38-22.166273.json": lighteval(),
    "task-000-arc_challenge-metrics.json": olmes_task(),
    "metrics.json": olmes_short(olmes_task(), olmes_task("boolq")),
    "0b5e.json": record(),
    NEOX_NAME: neox(),
}
TABLES = [datadecide, ladder_log, ladder_table, contents_v1, contents_v2]
GOOD = {"model": "good", "step": 4, "value": 3.25}


def check(folder: Any, files: dict[str, bytes], numbers: set[float] | None) -> None:
    """Check that the good result is shown, and of the other files only numbers that they hold."""
    good = ours(GOOD["value"], checkpoint={"model": "good", "revision": "step4", "commit": "g" * 40, "step": 4})
    (folder / "results_good.json").write_text(json.dumps(good), "utf-8")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    code, out = run(["results", str(folder), "--all", "--format", "json"])
    assert code == 0, out
    rows = json.loads(out, parse_constant=lambda name: (_ for _ in ()).throw(AssertionError(name)))
    assert [{key: row[key] for key in GOOD} for row in rows if row["path"] == "results_good.json"] == [GOOD]
    shown = {row["value"] for row in rows if row["path"] != "results_good.json"} - {None}
    if numbers is not None:
        assert shown <= numbers


def numbers_in(document: Any) -> set[float]:
    """Return all finite numbers in a document."""
    if isinstance(document, dict | list):
        inner = document.values() if isinstance(document, dict) else document
        return {number for value in inner for number in numbers_in(value)}
    try:
        # Details of records are numbers as text.
        number = float(document) if isinstance(document, str | int | float) and document is not True else math.nan
    except (ValueError, OverflowError):
        return set()
    return {number} if math.isfinite(number) else set()


@fuzzed(10, files=5)
@given(data=st.data())
def test_json_files(folder, data):
    documents = {name: data.draw(changed(document)) for name, document in FILES.items()}
    contents = {name: json.dumps(document).encode("utf-8", "surrogatepass") for name, document in documents.items()}
    numbers = numbers_in([json.loads(content) for content in contents.values()])
    check(fresh(folder), contents, numbers)


@fuzzed(5, files=6)
@given(data=st.data())
def test_cut_files(folder, data):
    files = {name: data.draw(cut(json.dumps(document).encode())) for name, document in FILES.items()}
    lines = "\n".join(json.dumps(olmes_task(task)) for task in ("arc_challenge", "boolq")).encode()
    root = fresh(folder)
    (root / "all").mkdir()
    check(root, {**files, "all/metrics-all.jsonl": data.draw(cut(lines))}, None)


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


@fuzzed(5, files=10)
@given(data=st.data())
def test_tables(folder, data):
    contents: dict[str, bytes] = {}
    for make in TABLES:
        rows = data.draw(changed(make()))
        text = as_csv([row for row in rows if isinstance(row, dict)])
        contents[f"{make.__name__}.csv"] = data.draw(cut(text)) if data.draw(st.booleans()) else text
        buffer = io.BytesIO()
        pd.DataFrame(make()).to_parquet(buffer, index=False)
        contents[f"{make.__name__}.parquet"] = data.draw(cut(buffer.getvalue()))
    check(fresh(folder), contents, None)
