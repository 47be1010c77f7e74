"""``lmsat shape``: how much of the loss is the shape's, at a fixed number of parameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.command import Answer, AnsweringCommand
from lmsat_plugin.cli.tables import TextTable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from lmsat_plugin.analysis.scaling_laws.shape import ShapeDependence
    from lmsat_plugin.analysis.stats.estimate import Estimate


class ShapeCommand(AnsweringCommand):
    """Say how much of the loss is the shape's, width over depth, at a fixed number of parameters.

    A regression of ln(loss) on ln(parameters) and on ln(width/depth) and its square, over at least eight models; and
    the spread of losses among models of one size (Kaplan et al. 2020, Sec. 3.1: little over a wide range of shapes).
    """

    name = "shape"
    help = "how much of the loss is the shape's"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the table and the outputs."""
        parser.add_argument(
            "data",
            metavar="FILE.csv",
            help="a CSV with the columns model, loss, hidden_size, n_layers and n_params_non_embedding or n_params",
        )

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the coefficients and the sizes."""
        from lmsat_plugin.analysis.scaling_laws.shape import shape_dependence
        from lmsat_plugin.analysis.tables import read_csv

        found = shape_dependence(read_csv(Path(args.data).expanduser()))

        def draw() -> Any:
            from lmsat_plugin.figures.plot import plot

            return plot(found)

        return Answer(found.to_dict(), _parts(found), draw)


def _parts(found: ShapeDependence) -> Iterator[TextTable | str]:
    yield TextTable(
        "ln L = c - alpha_N ln N + s x + q x^2, x = ln(width/depth) about its mean",
        ["constant", "value", f"{100 * found.confidence:g} % interval"],
        [
            _row(name, one)
            for name, one in (("alpha_N", found.alpha_n), ("s", found.slope), ("q", found.curvature))
        ],
    )
    yield TextTable(
        "Models of one size",
        ["parameters", "models", "widest span of shapes", "spread of losses %", "at one N %"],
        [
            [
                f"{one.n_params:.3g}",
                len(one.models),
                f"{one.aspect_span:.3g}",
                100 * one.loss_spread,
                100 * one.loss_spread_at_n,
            ]
            for one in found.groups
        ],
    )
    best = "" if found.best_aspect is None else f", least at width/depth = {found.best_aspect:.3g}"
    yield (
        f"By the regression the shapes measured differ by {100 * found.shape_spread:.2g} % of the loss{best}."
    )


def _row(name: str, one: Estimate) -> list[str]:
    return [name, f"{one.value:.4g}", f"{one.low:.4g} to {one.high:.4g}"]
