"""Files with a probe: the one with which docs/plugins.md begins, and others made of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from places import ROOT

from lmsat_plugin.plugins import plugins

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCUMENTATION = (ROOT / "docs" / "plugins.md").read_text("utf-8")
SURPRISE = re.search(r"^`mine.py`:\n\n```python\n(.*?)^```$", DOCUMENTATION, re.MULTILINE | re.DOTALL)[1]


def write_probe(folder: Path, text: str = SURPRISE) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


@pytest.fixture
def no_other_files(monkeypatch) -> Iterator[None]:
    """Leave the files of probes, and the plugins, of this process as they were."""
    monkeypatch.setenv("LMSAT_PROBES", "")
    plugins.cache_clear()
    yield
    plugins.cache_clear()
