"""``lmsat eval``: lm-eval with the plugin loaded explicitly."""

from __future__ import annotations

import argparse
import sys

from lmsat_plugin.cli.command import Command


class EvalCommand(Command):
    """Run ``lm_eval run ...`` with the plugin loaded explicitly, without relying on the start-up hook."""

    name = "eval"
    help = "lm_eval run ... with the plugin loaded"
    examples = (
        "lmsat eval --model lmsat --model_args pretrained=EleutherAI/pythia-14m --tasks 'lmsat_*'",
        "lmsat eval --model lmsat --model_args pretrained=runs/my-model/step1000,head_rank=64 --tasks lambada_openai",
    )
    repeats_warnings = True
    passes_on = True

    def run(self, args: argparse.Namespace) -> None:
        """Pass all arguments on to lm-eval."""
        import lmsat_autoload

        lmsat_autoload.install()
        from lmsat_plugin.harness.command import run_lm_eval_command

        sys.argv = ["lm_eval", "run", *args.rest]
        run_lm_eval_command()
