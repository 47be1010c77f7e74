"""Write docs/commands.md: what each ``lmsat`` command takes and answers, and what each task measures.

``python docs/generate.py`` after a change of a command, a probe or a corpus. The tables are made from the parser
and the settings themselves: argparse words its help differently from one Python to the next.
"""

from __future__ import annotations

import argparse
import ast
import html
import inspect
import itertools
import re
import textwrap
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import yaml

from lmsat_plugin.cli.guide import COMMANDS
from lmsat_plugin.cli.parser import build_parser, subcommands
from lmsat_plugin.plugins import Plugins, plugins
from lmsat_plugin.text.corpora import CorpusSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lmsat_plugin.probe import Probe
    from lmsat_plugin.settings import Settings

PAGE = Path(__file__).with_name("commands.md")
_CODE = re.compile(r"(`+[^`]+`+)")
_CODE_WITH_BAR = re.compile(r"`([^`|]*\|[^`]*)`")
_SPECIAL = re.compile(r"([\\*<>|\[\]])")
_INTRODUCTION = """\
# Commands and tasks

<!-- Made by docs/generate.py. -->

What the answers of commands and tasks mean, and how they are computed, stands on the pages of each question, which the
[start](index.md#where-to-read-on) lists.
Bad input ends a command with one sentence and exit code 2. {epilog}
"""
_TASKS = """\
## Tasks

Tasks of lm-eval, with `--model lmsat` or any other model, and of sweeps. Their settings go through
`--metadata NAME=VALUE` or beside the task in a sweep's file. `lmsat probes` lists those of installed plugins, too;
[downstream.md](downstream.md) has the groups `lmsat-pythia` and `lmsat-emergence`.
"""


def page() -> str:
    """Return the page."""
    parser = build_parser()
    installed = plugins()
    parts = [_INTRODUCTION.format(epilog=prose(parser.epilog or "")), "## Commands\n"]
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    helps = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    links = ([f"[`lmsat {name}`](#lmsat-{name})", prose(helps[name])] for name in commands.choices)
    parts.append(table(("command", "what it does"), links))
    examples = {command.name: command.examples for command in COMMANDS}
    for name, command in subcommands(parser).items():
        parts += command_section(name, command, examples[name])
    parts.append(_TASKS)
    for name, probe in installed.probes.items():
        if _is_built_in(installed, f"probe:{name}"):
            parts += task_section(probe)
    parts += ["### Every task that reads text\n", settings_table(CorpusSettings)]
    parts += ["## Corpora\n", table(("corpus", "data set on the Hub", "what it is"), corpora(installed))]
    return "\n".join(parts)


def command_section(name: str, parser: argparse.ArgumentParser, examples: Sequence[str]) -> Iterator[str]:
    """Yield a command's heading, its description, its examples, and its arguments."""
    yield f"### lmsat {name}\n"
    yield description(parser.description or "")
    yield "\n".join(("```", *examples, "```\n"))
    rows = [row for action in parser._actions if (row := argument(action, parser)) is not None]
    if rows:
        yield table(("argument", "meaning"), rows)
    for group in parser._mutually_exclusive_groups:
        names = ", ".join(f"`{action.option_strings[-1]}`" for action in group._group_actions)
        yield f"{'Exactly' if group.required else 'At most'} one of {names}.\n"


def argument(action: argparse.Action, parser: argparse.ArgumentParser) -> tuple[str, str] | None:
    """Return how an argument is written and what it means; None for the help and for what is hidden."""
    if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
        return None
    shown = action.metavar or (next(iter(action.choices)) if action.choices else action.dest.upper())
    written = {0: "", "?": f" [{shown}]", "*": f" [{shown} ...]", "+": f" {shown} ..."}.get(action.nargs, f" {shown}")
    if action.choices and not action.metavar:
        written = " " + "/".join(map(str, action.choices))
    meaning = prose((action.help or "") % {**vars(action), "prog": parser.prog})
    if action.option_strings and action.required:
        meaning += "; required"
    default = action.default
    if default not in (None, "", argparse.SUPPRESS, False) and "default" not in meaning:
        meaning += f" (default: `{default}`)"
    return f"`{', '.join(action.option_strings)}{written}`".replace("` ", "`"), meaning.strip()


def task_section(probe: type[Probe]) -> Iterator[str]:
    """Yield a task's heading, what it measures, what it needs, and its settings."""
    yield f"### {probe.task()}\n"
    yield description(probe.__doc__ or "")
    needs = ", ".join(str(need.name).lower().replace("_", " ") for need in probe.needs)
    asked = " It is asked for by its name: `lmsat_*` leaves it out." if probe.is_expensive else ""
    yield f"Needs: {needs}. Cost: {probe.stated_cost()}.{asked}\n"
    if probe.settings_type.model_fields:
        yield settings_table(probe.settings_type)


def settings_table(kind: type[Settings]) -> str:
    """Return a table of settings, their defaults, and what is written beside them."""
    meanings = dict(field_docstrings(kind))
    rows = []
    for name, field in kind.model_fields.items():
        words = [prose(meanings[name])] if name in meanings else []
        if get_origin(field.annotation) is Literal:
            words.append(f"One of {', '.join(f'`{choice}`' for choice in get_args(field.annotation))}.")
        rows.append((f"`{name}`", f"`{field.get_default(call_default_factory=True)}`", " ".join(words)))
    return table(("setting", "default", "meaning"), rows)


def field_docstrings(kind: type[Settings]) -> Iterator[tuple[str, str]]:
    """Yield the fields of a class that a string follows, with it."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match after:
                case ast.Expr(ast.Constant(str() as text)):
                    yield field.target.id, inspect.cleandoc(text)


def corpora(installed: Plugins) -> Iterator[tuple[str, str, str]]:
    """Yield lmsat's own named corpora."""
    named = yaml.safe_load(files("lmsat_plugin.text").joinpath("corpora.yaml").read_text("utf-8"))
    for name, source in installed.corpora.items():
        if _is_built_in(installed, f"corpus:{name}"):
            entry: dict[str, Any] = named.get(name, {})
            note = entry.get("note") or (inspect.getdoc(source) or "").split("\n")[0]
            place = f"`{entry['path']}`, {entry['split']}" if entry else ""
            yield f"`{name}`", place, prose(note)


def _is_built_in(installed: Plugins, key: str) -> bool:
    return installed.origins[key] == "built in"


def description(text: str) -> str:
    """Return a docstring as Markdown: paragraphs of commands and of columns are code."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        is_code = re.search(r"^lmsat |\S {2,}\S", paragraph, re.MULTILINE)
        paragraphs.append(f"```\n{paragraph}\n```" if is_code else prose(paragraph))
    return "\n\n".join(paragraphs) + "\n"


def prose(text: str) -> str:
    """Return text with what Markdown would take for markup escaped, but for code between backticks."""
    parts = _CODE.split(" ".join(text.split()))
    return "".join(part if index % 2 else _SPECIAL.sub(r"\\\1", part) for index, part in enumerate(parts))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(_in_cell, cells))} |\n" for cells in lines)


def _in_cell(text: str) -> str:
    """Return text whose code has no bar: GitHub takes it for the end of a cell, and the site shows an escaped one."""
    return _CODE_WITH_BAR.sub(lambda code: f"<code>{html.escape(code[1]).replace('|', '&#124;')}</code>", text)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
