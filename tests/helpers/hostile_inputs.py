"""Inputs that nobody means: values, documents with some of their values replaced, names, tables. For hypothesis."""

from __future__ import annotations

import contextlib
import copy
import io
import os
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from lmsat_plugin.cli.main import main

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


def fuzzed(examples: int):
    """Return the settings of a fuzzer: so many inputs, always the same; ``LMSAT_FUZZ=N`` tries N random ones."""
    chosen = os.environ.get("LMSAT_FUZZ")
    return settings(
        max_examples=int(chosen or examples),
        derandomize=chosen is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
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


def run(arguments: Sequence[str]) -> tuple[int, str]:
    """Run the command lmsat; return its exit code and what it prints. A refusal has to be one sentence."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as exit_:  # argparse
            return 2, str(exit_)
    if code == 2:
        *_, last = err.getvalue().splitlines()
        assert last.startswith("lmsat: error: "), err.getvalue()
    assert "Traceback" not in err.getvalue()
    return code, out.getvalue()
