"""``lmsat convert``: a training's checkpoint as a folder that transformers reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from lmsat_plugin.cli.command import Command
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import user_path
from lmsat_plugin.outside_text import show


class ConvertCommand(Command):
    """Write a checkpoint in torch's own formats as a folder that transformers reads.

    It reads folders of torch.distributed.checkpoint, state dicts that torch.save wrote, and Lightning's files, and runs
    no code that is in them. A sweep does the same with `config` in its configuration, and runs any other converter with
    `convert`.
    """

    name = "convert"
    help = "write a training's checkpoint as a folder for transformers"
    examples = (
        "lmsat convert checkpoint-1000 converted/step1000 --config EleutherAI/pythia-160m",
        "lmsat convert model.ckpt converted/last --config runs/my-model-config --rename 'model\\.(.*)=\\1'",
    )
    repeats_warnings = True

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("source", type=Path, help="a folder or a file")
        parser.add_argument("out", type=Path, help="the folder to write, which is not there yet")
        parser.add_argument(
            "--config",
            required=True,
            metavar="NAME",
            help="a folder or a repository of the Hub with the model's config.json and its tokenizer",
        )
        parser.add_argument(
            "--rename",
            nargs="+",
            default=[],
            metavar="PATTERN=TEXT",
            help="regular expressions for names of tensors, each with what takes a match's place",
        )
        parser.add_argument("--trust-remote-code", action="store_true", help="run the configuration's own code")

    def run(self, args: argparse.Namespace) -> None:
        """Convert, and say what was done."""
        from lmsat_plugin.conversion.recipe import Recipe

        if unclear := [pair for pair in args.rename if "=" not in pair]:
            raise LmsatError(f"--rename {unclear[0]} has no '=': write PATTERN=TEXT")
        pairs = [pair.partition("=") for pair in args.rename]
        recipe = Recipe(
            config=args.config,
            rename=tuple((pattern, text) for pattern, _, text in pairs),
            trust_remote_code=args.trust_remote_code,
        )
        out = user_path(args.out)
        notes = recipe.convert(user_path(args.source), out)
        stripped = f", without the prefix '{notes['stripped']}' of the names" if "stripped" in notes else ""
        unread = f"; {notes['unread']:,} other tensors are left out" if "unread" in notes else ""
        show(f"{out}: {notes['tensors']:,} tensors of the format of {notes['format']}{stripped}{unread}")
