"""The pages of the documentation, and the commands and snippets in their code blocks."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from places import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAMS = ("lmsat", "lm_eval", "make", "pip", "python", ".venv/bin/lmsat")


@dataclass(frozen=True)
class Command:
    """A line of a shell."""

    text: str
    program: str
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, line: str) -> Command | None:
        """Return the command that a line is; None for a line that begins with no program."""
        if not re.match(rf"(\w+=\S+ )*({'|'.join(map(re.escape, PROGRAMS))}) ", line):
            return None
        words = shlex.split(line, comments=True)
        environment = {}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        return cls(re.sub(r"\s+#.*| > .*", "", line), words[0].removeprefix(".venv/bin/"), words[1:], environment)


def without_code(page: Path) -> str:
    """Return a page's text without its code blocks."""
    return FENCED.sub("", page.read_text("utf-8"))


def commands_of(page: Path) -> list[Command]:
    """Return the commands of a page's blocks without a language, and of the tables of figures.

    In a block with lines that begin with $, the others are output. A block that begins with a command has nothing else.
    """
    found = []
    for language, block in FENCED.findall(page.read_text("utf-8")):
        lines = [line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip()]
        asked = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        commands = [Command.of(line) for line in asked or lines]
        if not language and commands[0] is not None:
            assert None not in commands, f"{page.name} has a line that is no command in\n{block}"
            found += [command for command in commands if command is not None]
    cells = re.findall(r"\| `(lmsat [^`]* --figure [^`]*)` \|", without_code(page))
    return found + [command for cell in cells if (command := Command.of(cell)) is not None]


def snippets_of(page: Path, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return [block for written, block in FENCED.findall(page.read_text("utf-8")) if written == language]
