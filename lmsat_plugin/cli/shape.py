"""``lmsat shape``: how much the loss depends on a model's shape, at a fixed number of parameters."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.files import user_path

if TYPE_CHECKING:
    from lmsat_plugin.analysis.scaling_laws.shape import ShapeDependence


class ShapeCommand(AnsweringCommand):
    """Find how much the loss depends on a model's shape, width over depth, at a fixed number of parameters.

    The answer is a regression of ln(loss) on ln(parameters), ln(width/depth) and its square, over eight or more models,
    and the spread of losses among models of one size (Kaplan et al. 2020, Sec. 3.1, find little dependence).
    """

    name = "shape"
    help = "how much the loss depends on the shape"
    examples = ("lmsat shape models.csv", "lmsat shape models.csv --figure shape.png")

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the table."""
        parser.add_argument(
            "data",
            metavar="FILE.csv",
            help="a CSV with the columns model, loss, hidden_size, n_layers and n_params_non_embedding or n_params",
        )

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the coefficients and the sizes."""
        from lmsat_plugin.analysis.input_tables import read_csv
        from lmsat_plugin.analysis.scaling_laws.shape import shape_dependence

        result = shape_dependence(read_csv(user_path(args.data)))
        return Answer(data=result.to_dict(), parts=_parts(result), result=result)


def _parts(result: ShapeDependence) -> Iterator[TextTable | str]:
    title = "ln L = c - alpha_N ln N + s x + q x^2, x = ln(width/depth) about its mean"
    coefficients = {"alpha_N": result.alpha_n, "s": result.slope, "q": result.curvature}
    constants = [(name, f"{c.value:.4g}", f"{c.low:.4g} to {c.high:.4g}") for name, c in coefficients.items()]
    yield TextTable(title, ("constant", "value", f"{100 * result.confidence:g} % interval"), constants)
    sizes = [
        (f"{g.n_params:.3g}", len(g.models), f"{g.aspect_span:.3g}", 100 * g.loss_spread, 100 * g.loss_spread_at_n)
        for g in result.groups
    ]
    columns = ("parameters", "models", "widest span of shapes", "spread of losses %", "at one N %")
    yield TextTable("Models of one size", columns, sizes)
    best = "" if result.best_aspect is None else f", least at width/depth = {result.best_aspect:.3g}"
    yield f"By the regression, the shapes measured differ by {100 * result.shape_spread:.2g} % of the loss{best}."
