"""``lmsat demo``: the whole product on a small series, offline."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.tables import print_table
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    import argparse

_COLUMNS = {
    "loss": "loss",
    "bits_per_byte": "bits/byte",
    "anisotropy_last": "anisotropy",
    "effective_rank_last": "eff. rank",
    "singular_entropy": "sing. entropy",
}


class Demo(Command):
    """Train a small GPT-NeoX series on CPython's documentation and measure every checkpoint through lm-eval.

    Two widths, ten log-spaced checkpoints each, in one process, offline, in a few minutes on two CPU cores.
    Leaves ordinary checkpoints and lm-eval result files.
    """

    name = "demo"
    help = "train a small series and measure it, offline"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add ``--output``."""
        parser.add_argument(
            "--output", type=Path, default=Path("demo"), metavar="DIR", help="a new folder (default: demo)"
        )

    def run(self, args: argparse.Namespace) -> int:
        """Run it and print the table."""
        output: Path = args.output
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise LmsatError(f"--output {output} is there already: remove it or name a new folder")
        from lmsat_plugin import load_results
        from lmsat_plugin.demo import run_demo
        from lmsat_plugin.report.collected import Collected
        from lmsat_plugin.report.page import write_report

        begun = time.monotonic()
        print(
            f"Training two small GPT-NeoX models on CPython's documentation; results go to {output}/",
            flush=True,
        )
        summary = run_demo(output, lambda line: print(f"  {line}", flush=True))
        table = load_results(output / "results").pivot_table(
            index=["model", "step"], columns="metric", values="value"
        )
        print_table(
            "Loss in nats/token on held-out documents, last layer's anisotropy and effective rank, the head's entropy",
            ["model", "step", *_COLUMNS.values()],
            table.reset_index()[["model", "step", *_COLUMNS]].values.tolist(),
        )
        collected = Collected.of(output / "results")
        page = write_report(collected, output / "results" / "report")
        for one in collected.saturation:
            print(f"{one.model}: {one.verdict}: {one.reason}.")
        print(
            f"{len(table)} checkpoints in {time.monotonic() - begun:.0f} s. "
            "A run this short does not saturate: these are the curves of a healthy beginning.\n"
            f"All values: lmsat results {output / 'results'}   Measure one again with:\n"
            f"  lm_eval --model lmsat --model_args pretrained={output}/checkpoints/neox-w128/step512 "
            f"--tasks 'lmsat_*' --metadata corpus={output}/held_out.jsonl\n"
            f"The report, to open in a browser: {page.resolve()}"
        )
        return int(bool(summary.failed))
