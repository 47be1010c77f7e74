"""Inputs that nobody means: values, documents with some of their values replaced, names, tables. For hypothesis."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import os
import re
import shutil
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from lmsat_plugin.cli import main as command_line

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXTS = [
    *("", " ", "nan", "inf", "-1", "0", "1e400", "None", "null", "N/A", "true", "=1+1", "@x", "'=", "\x00", "\x1b[31m"),
    *(
        "\u202e",
        "\ud800",
        "é",
        "名",
        "a/b",
        "../..",
        "~nobody",
        "~",
        "/",
        ".",
        "x" * 300,
        "9" * 5000,
        "step" + "9" * 30,
    ),
    *("step1000", "2024-13-45", "1_000", "1,5", "\r", "a\nb", "<b>", "%s", "{}", "lmsat_loss", "loss,none", ",none"),
]
NUMBERS = [0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63), 10**30, 10**400, 1e-320, 1e300, -1e300]
UNREAL = [float("nan"), float("inf"), float("-inf"), -0.0]


LIKE_NUMBERS = [
    *("2.5", "+5", "5.", ".5", "1E5", "1e-400", "1e400", " 3", "3 ", "1_000", "1,000", "0x10", "1e5e5", "--5", "5-"),
    *("1 000", "12abc", "5\x006", "5\x00", "Infinity", "-inf", "NaN", "NA", "true", "True", "१२", "2.5 nats", "1d5"),
    *("0.1", "0.30000000000000004", "8.41e-21", "123456789.123456789", "9007199254740993", "1" * 25, "2" * 400),
]
"""Cells that are numbers, or look like some."""
CI_INPUTS = 1000
"""How many all fuzzers together try in CI."""


def fuzzed(examples: int, files: int = 1):
    """Return the settings of a fuzzer that in CI tries so many examples of so many files each, always the same.

    ``LMSAT_FUZZ=N`` tries N random inputs in all, shared among the tests as in CI.
    """
    total = os.environ.get("LMSAT_FUZZ")

    return settings(
        max_examples=examples if total is None else max(1, examples * int(total) // CI_INPUTS),
        derandomize=total is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # To make a failing input smaller would take minutes.
        phases=[Phase.generate],
    )


def scalars() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.sampled_from([None, True, False, *TEXTS, *NUMBERS, *UNREAL]), st.text(max_size=8), st.integers(), st.floats()
    )


def values() -> st.SearchStrategy[Any]:
    """Values that JSON can hold, and some that it should not."""
    return st.recursive(
        scalars(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(TEXTS) | st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=5,
    )


def paths(document: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each value in a document."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [above, *(path for key, value in inner for path in paths(value, (*above, key)))]


@st.composite
def changed(draw: Any, document: Any) -> Any:
    """Return a document in which one to four values are replaced, removed, or moved under other keys."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(paths(document)))
        if not path:
            continue
        *above, last = path
        place = document
        for key in above:
            place = place[key]
        how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename"]))
        if how == "replace" or isinstance(place, list):
            place[last] = draw(values())
        elif how == "remove":
            del place[last]
        else:
            place[draw(st.sampled_from(TEXTS))] = place.pop(last)
    return document


@st.composite
def cut(draw: Any, text: bytes) -> bytes:
    """Return bytes of which a part is missing, or replaced by others."""
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 40)))
    return text[:start] + draw(st.sampled_from([b"", b"\0", b"\xff", b"[" * 2000, b'"', b"9" * 5000])) + text[end:]


@st.composite
def changed_tensors(draw: Any, data: bytes) -> bytes:
    """Return a safetensors file that is cut, or has another header, or one flipped bit."""
    how = draw(st.sampled_from(["cut", "header", "bit"]))
    if how == "cut":
        return draw(cut(data))
    if how == "bit":
        bit = draw(st.integers(0, 8 * len(data) - 1))
        return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
    (size,) = struct.unpack("<Q", data[:8])
    header = json.dumps(draw(changed(json.loads(data[8 : 8 + size])))).encode("utf-8", "replace")
    return struct.pack("<Q", draw(st.sampled_from([len(header), size, 0, 2**63]))) + header + data[8 + size :]


def fresh(folder: Path) -> Path:
    """Return a new folder in another one, from which the one before is removed."""
    for old in folder.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    return Path(tempfile.mkdtemp(dir=folder))


def with_depth(data: bytes, draw: Any) -> bytes:
    """Return JSON in which a number, if there is one, is replaced by lists or dicts in one another."""
    depth = draw(st.sampled_from([30, 150, 330, 480, 900, 990, 1000, 3000, 100_000]))
    start, end = draw(st.sampled_from([(b"[", b"]"), (b'{"a": ', b"}")]))
    places = list(re.finditer(rb"(?<=: )[\d.]+(?=[,}\n])", data))
    if not places:
        return data
    place = draw(st.sampled_from(places))
    return data[: place.start()] + start * depth + b"1" + end * depth + data[place.end() :]


_parser = functools.cache(command_line.build_parser)


def run(arguments: Sequence[str]) -> tuple[int, str]:
    """Run the command lmsat; return its exit code and what it prints. A refusal has to be one sentence."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        # It takes as long as all the rest.
        patch.setattr(command_line, "build_parser", _parser)
        try:
            code = command_line.main(arguments)
        except SystemExit as exit_:  # argparse
            return 2, str(exit_)
    if code == 2:
        *_, last = err.getvalue().splitlines()
        assert last.startswith("lmsat: error: "), err.getvalue()
    assert "Traceback" not in err.getvalue()
    return code, out.getvalue()
