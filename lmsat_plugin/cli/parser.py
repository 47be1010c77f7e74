"""The parser of the command line, and what is said of an option that a command does not have."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import shtab

from lmsat_plugin.cli.guide import COMMANDS
from lmsat_plugin.cli.sweep_arguments import KEYS
from lmsat_plugin.outside_text import printable, shortened
from lmsat_plugin.settings import closest
from lmsat_plugin.version import __version__


class _Parser(argparse.ArgumentParser):
    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices and (meant := closest(value, action.choices)):
            raise argparse.ArgumentError(action, f"'{shortened(value)}' is unknown: did you mean {meant}?")
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all subcommands."""
    parser = _Parser(
        prog="lmsat",
        description="Measure saturation of language-model checkpoints inside the LM Evaluation Harness.",
        epilog="LMSAT_DEBUG=1 shows tracebacks, LMSAT_PLUGINS=0 leaves installed plugins out, LMSAT_REPORT=0 has "
        "sweeps make no page.",
    )
    parser.add_argument("--version", action="version", version=f"lmsat {__version__}")
    shtab.add_argument_to(
        parser, "--print-completion", help='print the completion for a shell: eval "$(lmsat --print-completion bash)"'
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for kind in COMMANDS:
        sub = commands.add_parser(
            kind.name,
            help=kind.help,
            description=kind.__doc__,
            epilog="\n".join(("examples:", *(f"  {example}" for example in kind.examples))),
            add_help=not kind.passes_on,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command = kind()
        command.add_arguments(sub)
        sub.set_defaults(execute=command.run, passes_on=kind.passes_on, repeats_warnings=kind.repeats_warnings)
    return parser


def refuse_unknown(unknown: Sequence[str], name: str, parser: argparse.ArgumentParser) -> NoReturn:
    """End with a command's usage, what it does not take, and what may have been meant."""
    commands = subcommands(parser)
    first = unknown[0]
    option = first.partition("=")[0]
    said = f"{shortened(first)} is no argument of lmsat {name}"
    options = {each: set(command._option_string_actions) for each, command in commands.items()}
    key = option.removeprefix("--").replace("-", "_")
    others = [f"lmsat {each}" for each, known in options.items() if option in known]
    if near := difflib.get_close_matches(option, sorted(options[name]), 1, 0.8):
        said += f": did you mean {near[0]}?"
    elif name == "sweep" and key in KEYS:
        said += f": write {key}=VALUE"
    elif others:
        said += f": it is one of {', '.join(others)}"
    commands[name].error(said)


def subcommands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """Return the parsers of the commands by name."""
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return commands.choices
