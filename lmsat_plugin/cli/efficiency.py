"""``lmsat efficiency``: what models of each size need to reach a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.arguments import add_data, read_data
from lmsat_plugin.cli.command import Answer, AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    import pandas as pd

    from lmsat_plugin.analysis.scaling_laws.efficiency import Efficiency, Reached


class EfficiencyCommand(AnsweringCommand):
    """Say how many tokens and how much compute models of each size need to reach a loss.

    Reads lmsat_loss from a results tree, or the columns model, n_params, tokens, loss (and flops, if there) of a CSV.
    The first crossing of the least loss so far, between two checkpoints; FLOPs are 6 · n_params · tokens. Losses in
    the midst of a schedule, before the learning rate has fallen, are higher than those of a training that ends there.
    """

    name = "efficiency"
    help = "tokens and compute that each size needs to reach a loss"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the data, the losses and the outputs."""
        add_data(parser, "a folder with result files, or a CSV")
        parser.add_argument(
            "--loss",
            type=float,
            action="append",
            required=True,
            metavar="NATS",
            help="a loss to reach, in nats per token; may be given several times",
        )

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return what each model needs."""
        from lmsat_plugin.analysis.scaling_laws.efficiency import sample_efficiency
        from lmsat_plugin.analysis.tables import is_tidy, table_of

        data = read_data(args)
        if is_tidy(table_of(data)):
            _check_tokens(table_of(data), args.data)
        found = sample_efficiency(data, args.loss)

        def draw() -> Any:
            from lmsat_plugin.figures.plot import plot

            return plot(found)

        return Answer(found.to_dict(), _parts(found), draw)


def _check_tokens(table: pd.DataFrame, data: str) -> None:
    if "tokens" not in table.columns or table.tokens.isna().all():
        raise LmsatError(f"the results in {data} do not state tokens: give --tokens-per-step N")


def _parts(found: Efficiency) -> Iterator[TextTable | str]:
    for best in found.best:
        rows = [_row(one) for one in found.reached if one.loss == best.loss]
        columns = ["model", "parameters", "tokens", "between", "FLOP", "next size needs", "doubling saves"]
        yield TextTable(f"To reach a loss of {best.loss:g}", columns, rows)
        if best.compute_optimal is not None:
            edge = ", but a size beyond these may need less" if best.at_edge else ""
            yield f"Least compute: {best.compute_optimal}{edge}."
        if best.diminishing_from is not None:
            yield (
                f"From {best.diminishing_from} on, doubling the size saves less than {100 * found.fewest_saved:g} % "
                "of the tokens."
            )


def _row(one: Reached) -> list[Any]:
    size = f"{one.n_params:.3g}"
    if one.tokens is None:
        return [one.model, size, f"> {one.low:.3g}", "", "", "", ""]
    least = "≤ " if one.at_most else ""
    return [
        one.model,
        size,
        f"{least}{one.tokens:.3g}",
        "" if one.at_most else f"{one.low:.3g} and {one.high:.3g}",
        f"{least}{one.flops:.3g}",
        "" if one.ratio is None else f"{100 * one.ratio:.3g} %",
        "" if one.saved is None else f"{100 * one.saved:.3g} %",
    ]
