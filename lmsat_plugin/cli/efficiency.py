"""``lmsat efficiency``: the tokens and the compute that models of each size need to reach a loss."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.arguments import add_data, read_data
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from lmsat_plugin.analysis.scaling_laws.efficiency import Efficiency, Reached


_COMPARED = {
    "same ratio": "those with the same ratio of tokens to parameters",
    "frontier": "where no ratio of tokens to parameters is the same, those that need the fewest tokens",
}


class EfficiencyCommand(AnsweringCommand):
    """Find the tokens and the compute that models of each size need to reach a loss.

    Reads lmsat_loss of a results tree, or a CSV with the columns model, n_params, tokens, loss and, if known, flops,
    which are 6 n_params tokens otherwise. A model reaches a loss where the least of its losses so far first crosses it,
    between two checkpoints. In the middle of a schedule, before the learning rate has fallen, a loss is higher than at
    the end of a training of that length.
    """

    name = "efficiency"
    help = "tokens and compute that each size needs to reach a loss"
    examples = (
        "lmsat efficiency results/ --loss 3.5",
        "lmsat efficiency losses.csv --loss 3.5 --figure efficiency.png",
    )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the data, the losses and the outputs."""
        add_data(parser, "a folder with result files, one file, or a CSV")
        parser.add_argument(
            "--loss",
            type=float,
            action="append",
            required=True,
            metavar="NATS",
            help="the loss to reach, in nats per token; may be given several times",
        )

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return what each model needs."""
        from lmsat_plugin.analysis.input_tables import is_tidy, table_of
        from lmsat_plugin.analysis.scaling_laws.efficiency import sample_efficiency

        data = read_data(args)
        table = table_of(data)
        if is_tidy(table) and ("tokens" not in table.columns or table.tokens.isna().all()):
            raise LmsatError(f"the results in {args.data} do not state tokens: give --tokens-per-step N")
        result = sample_efficiency(data, args.loss)
        return Answer(data=result.to_dict(), parts=_parts(result), result=result)


def _parts(result: Efficiency) -> Iterator[TextTable | str]:
    columns = ["model", "parameters", "tokens", "between", "FLOP", "next size needs", "doubling saves"]
    for best in result.best:
        rows = [_row(reached) for reached in result.reached if reached.loss == best.loss]
        yield TextTable(f"To reach a loss of {best.loss:g}", columns, rows)
        hows = {reached.compared for reached in result.reached if reached.loss == best.loss} - {None, "only runs"}
        for how in sorted(map(str, hows)):
            yield f"Of several runs of one size, {_COMPARED[how]} are compared."
        if best.compute_optimal is not None:
            edge = ", but a larger or a smaller one may need less" if best.at_edge else ""
            yield f"Least compute: {best.compute_optimal}{edge}."
        if best.diminishing_from is not None:
            saved = f"less than {100 * result.fewest_saved:g} % of the tokens"
            yield f"From {best.diminishing_from} on, doubling the size saves {saved}."


def _row(reached: Reached) -> list[str | None]:
    size = f"{reached.n_params:.3g}"
    if reached.tokens is None:
        return [reached.model, size, f"> {reached.low:.3g}", None, None, None, None]
    bound = "≤ " if reached.at_most else ""
    return [
        reached.model,
        size,
        f"{bound}{reached.tokens:.3g}",
        None if reached.at_most else f"{reached.low:.3g} and {reached.high:.3g}",
        f"{bound}{reached.flops:.3g}",
        None if reached.ratio is None else f"{100 * reached.ratio:.3g} %",
        None if reached.saved is None else f"{100 * reached.saved:.3g} %",
    ]
