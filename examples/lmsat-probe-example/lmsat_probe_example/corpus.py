"""A corpus that every Python has: its Zen."""

from __future__ import annotations

import codecs
import contextlib
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmsat_plugin.text.corpora import CorpusSettings


def zen(settings: CorpusSettings) -> list[str]:
    """Return the Zen of Python, an aphorism a document."""
    with contextlib.redirect_stdout(io.StringIO()):  # importing it prints it
        import this
    return [line for line in codecs.decode(this.s, "rot13").splitlines() if line]
