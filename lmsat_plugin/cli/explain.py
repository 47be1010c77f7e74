"""``lmsat explain``: what a word of verdicts, tables and charts means."""

from __future__ import annotations

import argparse
import textwrap

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.glossary import WORDS, Word, similar_to, word_of
from lmsat_plugin.outside_text import shortened
from lmsat_plugin.settings import closest

_WIDTH = 100


class ExplainCommand(AnsweringCommand):
    """Print what a word means: of verdicts, of tables, or of a metric. Without one, print all."""

    name = "explain"
    help = "what a word of verdicts, tables and charts means"
    examples = ("lmsat explain effective rank", "lmsat explain onset")

    has_figure = False

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the word."""
        parser.add_argument("words", nargs="*", metavar="WORD", help="such as onset, plateaus, singular entropy, p")

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the meaning. Raises `LmsatError` for a word that is not known."""
        text = " ".join(args.words)
        word = word_of(text)
        found = [word] if word is not None else similar_to(text) if text else list(WORDS)
        if not found:
            meant = closest(text, [name for one in WORDS for name in (one.name, *one.also)])
            hint = f"did you mean {meant}?" if meant else "lmsat explain lists all words that are"
            raise LmsatError(f"'{shortened(text)}' is not explained: {hint}")
        data = [{"word": one.name, "also": list(one.also), "meaning": one.meaning} for one in found]
        return Answer(data=data, parts=map(_lines, found))


def _lines(word: Word) -> str:
    also = f" (also {', '.join(word.also)})" if word.also else ""
    meaning = textwrap.fill(word.meaning, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return f"{word.name}{also}\n{meaning}"
