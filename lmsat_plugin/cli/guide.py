"""All commands, in groups, and the guide that ``lmsat`` alone prints."""

from __future__ import annotations

import itertools

from lmsat_plugin.cli.allocate import AllocateCommand
from lmsat_plugin.cli.bottleneck import BottleneckCommand
from lmsat_plugin.cli.checkpoints import CheckpointsCommand
from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.compare import CompareCommand
from lmsat_plugin.cli.context import ContextCommand
from lmsat_plugin.cli.convert import ConvertCommand
from lmsat_plugin.cli.demo import DemoCommand
from lmsat_plugin.cli.doctor import DoctorCommand
from lmsat_plugin.cli.efficiency import EfficiencyCommand
from lmsat_plugin.cli.emergence import EmergenceCommand
from lmsat_plugin.cli.eval import EvalCommand
from lmsat_plugin.cli.explain import ExplainCommand
from lmsat_plugin.cli.export import ExportCommand
from lmsat_plugin.cli.fit import FitCommand
from lmsat_plugin.cli.leaderboard import LeaderboardCommand
from lmsat_plugin.cli.learning import LearningCommand
from lmsat_plugin.cli.ngram import NgramCommand
from lmsat_plugin.cli.noise import NoiseCommand
from lmsat_plugin.cli.probes import ProbesCommand
from lmsat_plugin.cli.report import ReportCommand
from lmsat_plugin.cli.results import ResultsCommand
from lmsat_plugin.cli.saturation import SaturationCommand
from lmsat_plugin.cli.shape import ShapeCommand
from lmsat_plugin.cli.size import SizeCommand
from lmsat_plugin.cli.sweep import SweepCommand
from lmsat_plugin.cli.verify import VerifyCommand

GROUPS: dict[str, tuple[type[Command], ...]] = {
    "Try": (DemoCommand, DoctorCommand),
    "Measure": (
        SweepCommand,
        CheckpointsCommand,
        ConvertCommand,
        SizeCommand,
        EvalCommand,
        NgramCommand,
        ProbesCommand,
    ),
    "Read": (ResultsCommand, VerifyCommand, ExplainCommand),
    "Analyse": (
        SaturationCommand,
        CompareCommand,
        FitCommand,
        EmergenceCommand,
        NoiseCommand,
        LearningCommand,
        EfficiencyCommand,
        ShapeCommand,
        ContextCommand,
        AllocateCommand,
        BottleneckCommand,
    ),
    "Publish": (ReportCommand, LeaderboardCommand, ExportCommand),
}
COMMANDS = tuple(itertools.chain(*GROUPS.values()))


def guide() -> str:
    """Return the commands of each group, and the first example of its first command."""
    width = max(len(command.name) for command in COMMANDS)
    parts = ["lmsat measures how a language model changes over its training, inside the LM Evaluation Harness.\n"]
    for title, commands in GROUPS.items():
        lines = [f"  {command.name:<{width}}  {command.help}" for command in commands]
        parts.append("\n".join((title, *lines, f"  {'':<{width}}  $ {commands[0].examples[0]}")) + "\n")
    parts.append("lmsat COMMAND --help shows a command's options and examples.\n")
    return "\n".join(parts)
