"""Words of the glossary where they stand in a page: what they mean, in the text's markup or in a heading's tip."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from lmsat_plugin.glossary import word_of
from lmsat_plugin.outside_text import printable

_IN_SENTENCES = re.compile(
    r"\b(saturates|plateaus|improving|unclear|diverged|not emergent|emergent|tolerance|threshold)\b|\b(p)(?= = )"
)


def explained(text: str) -> Markup:
    """Return a sentence as HTML in which the first use of each word of a verdict says what it means."""
    seen: set[str] = set()

    def marked(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        word = word_of(name.removeprefix("not "))
        if word is None or word.name in seen:
            return match[0]
        seen.add(word.name)
        return f'<abbr title="{escape(word.meaning)}">{name}</abbr>'

    return Markup(_IN_SENTENCES.sub(marked, str(escape(printable(text)))))


def meaning(heading: str) -> str:
    """Return what a column or a metric means; "" where that is not explained."""
    word = word_of(heading)
    return "" if word is None else word.meaning
