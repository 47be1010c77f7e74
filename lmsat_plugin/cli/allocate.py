"""``lmsat allocate``: how large a model and how much data a compute is best spent on."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.tables import print_table

if TYPE_CHECKING:
    import argparse


class Allocate(Command):
    """Say how large a model, on how much data, a compute is best spent on; or the compute that a size is best for.

    Kaplan et al. 2020 (Table 6), Hoffmann et al. 2022 (Approach 3) and the refit of Hoffmann's points by Besiroglu
    et al. 2024, side by side at C = 6ND. Kaplan counts parameters without embeddings, the others with them. Each
    loss is that of the paper's own corpus and tokenizer: losses of different papers do not compare.
    """

    name = "allocate"
    help = "the best size and data for a compute, by published laws"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the three ways to say what is given."""
        given = parser.add_mutually_exclusive_group(required=True)
        given.add_argument(
            "--compute", type=float, metavar="PF_DAYS", help="a compute in PF-days of 8.64e19 FLOP"
        )
        given.add_argument("--flops", type=float, metavar="C", help="a compute in floating-point operations")
        given.add_argument("--params", type=float, metavar="N", help="a number of parameters")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> None:
        """Print the answers."""
        from lmsat_plugin.analysis.scaling_laws.allocation import allocate
        from lmsat_plugin.analysis.scaling_laws.kaplan import PF_DAY

        flops = args.flops if args.compute is None else args.compute * PF_DAY
        found = allocate(flops=flops, n_params=args.params)
        if args.json:
            print(json.dumps(asdict(found), indent=2, allow_nan=False))
            return
        title = (
            f"The best use of {flops:.3g} FLOP"
            if args.params is None
            else f"For {args.params:.3g} parameters"
        )
        columns = ["source", "parameters", "tokens", "tokens/param.", "FLOP", "PF-days", "loss"]
        rows = []
        for one in found.answers:
            sizes = one.n_params, one.tokens, one.tokens_per_param
            rows.append([one.source, *sizes, one.flops, one.flops / PF_DAY, one.loss])
        print_table(title, columns, rows)
        print(
            f"Kaplan et al., of theirs: the batch is far below the critical one of {found.critical_batch:.3g} tokens, "
            f"at which the same\nloss takes twice the tokens and the FLOP, in {2 * found.s_min:.3g} steps. Less than "
            f"{found.data_needed:.3g} tokens of data (by their rule {found.data_needed_rule:.3g}),\nread several "
            "times, cost more than 2 % of the loss."
        )
