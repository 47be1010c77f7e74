"""``lmsat allocate``: the best model size and amount of data for a compute, by published laws."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable

if TYPE_CHECKING:
    from lmsat_plugin.analysis.scaling_laws.allocation import Allocation

_CAUTION = "Each loss is that of the paper's own corpus and tokenizer: losses of different papers do not compare."


class AllocateCommand(AnsweringCommand):
    """Give the best model size and amount of data for a compute, or the compute for which a size is best.

    The laws are those of Kaplan et al. 2020 (Table 6), of Hoffmann et al. 2022 (Approach 3), and of Besiroglu et al.
    2024, who refitted Hoffmann's points; all at C = 6ND. Kaplan counts parameters without embeddings, the others count
    all. Each loss is that of the paper's own corpus and tokenizer: losses of different papers do not compare.
    """

    name = "allocate"
    has_figure = False
    help = "the best size and data for a compute, by published laws"
    examples = ("lmsat allocate --flops 1e21", "lmsat allocate --params 160e6 --json")

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the three quantities, one of which is given."""
        given = parser.add_mutually_exclusive_group(required=True)
        given.add_argument("--compute", type=float, metavar="PF_DAYS", help="a compute in PF-days of 8.64e19 FLOP")
        given.add_argument("--flops", type=float, metavar="C", help="a compute in floating-point operations")
        given.add_argument("--params", type=float, metavar="N", help="a number of parameters")

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return each paper's advice."""
        from lmsat_plugin.analysis.scaling_laws.allocation import allocate
        from lmsat_plugin.analysis.scaling_laws.kaplan import PF_DAY

        flops = args.flops if args.compute is None else args.compute * PF_DAY
        allocation = allocate(flops=flops, n_params=args.params)
        given = f"For {args.params:.3g} parameters" if flops is None else f"The best use of {flops:.3g} FLOP"
        columns = ["source", "parameters", "tokens", "tokens/param.", "FLOP", "PF-days", "loss"]
        rows = [
            (best.source, best.n_params, best.tokens, best.tokens_per_param, best.flops, best.flops / PF_DAY, best.loss)
            for best in allocation.answers
        ]
        table = TextTable(given, columns, rows)
        return Answer(data=asdict(allocation), parts=[table, _kaplan(allocation), _CAUTION])


def _kaplan(allocation: Allocation) -> TextTable:
    more, implied = allocation.kaplan, allocation.kaplan.implied
    rows = {
        "critical batch, tokens; at it the training takes twice the tokens and the FLOP": allocation.critical_batch,
        "steps at the critical batch": 2 * allocation.s_min,
        "tokens in twice the fewest steps": more.tokens_at_twice_s_min,
        "tokens of data below which repeating them costs more than 2 % of the loss": allocation.data_needed,
        "the same by their rule 5e3 N^0.74": allocation.data_needed_rule,
        "loss of this size at convergence": more.converged_loss,
        "how far above that the optimal training stops, %": 100 * more.stop_above_converged,
        "compute to come within 2 % of convergence instead, times": more.converged_compute,
        "compute with half the size for the same loss, times": more.half_size_compute,
        "compute with twice the size for the same loss, times": more.double_size_compute,
        "loss if there are only the tokens of the critical batch's training": more.joint_loss,
        "rise of the loss from overfitting to them, %": 100 * more.overfitting,
        "step before which no training on them should stop": more.early_stopping_steps,
        "parameters that their laws imply, beside the fit": implied.n_opt,
        "loss that their laws imply, beside the fit": implied.loss,
        "exponent of L(C_min) that their laws imply; they fit 0.050": more.implied_exponent,
        "PF-days beyond which their laws contradict each other": more.breakdown.c_min,
    }
    return TextTable("More by Kaplan et al. 2020, of their optimum", ["what", "value"], list(rows.items()))
