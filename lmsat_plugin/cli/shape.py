"""``lmsat shape``: how much of the loss is the shape's, at a fixed number of parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.data import add_output, check_figure, write_figure_of
from lmsat_plugin.cli.tables import print_table

if TYPE_CHECKING:
    import argparse

    from lmsat_plugin.analysis.scaling_laws.shape import Estimate, ShapeDependence


class Shape(Command):
    """Say how much of the loss is the shape's, width over depth, at a fixed number of parameters.

    A regression of ln(loss) on ln(parameters) and on ln(width/depth) and its square, over at least eight models; and
    the spread of losses among models of one size (Kaplan et al. 2020, Sec. 3.1: little over a wide range of shapes).
    """

    name = "shape"
    help = "how much of the loss is the shape's"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the table and the outputs."""
        parser.add_argument(
            "data",
            metavar="FILE.csv",
            help="a CSV with the columns model, loss, hidden_size, n_layers and n_params_non_embedding or n_params",
        )
        add_output(parser)

    def run(self, args: argparse.Namespace) -> None:
        """Print the coefficients and the sizes, and write the figure."""
        from lmsat_plugin.analysis.scaling_laws.shape import shape_dependence
        from lmsat_plugin.analysis.tables import read_csv

        check_figure(args)
        found = shape_dependence(read_csv(Path(args.data).expanduser()))
        write_figure_of(args, found.plot)
        if args.json:
            print(json.dumps(found.facts(), indent=2, allow_nan=False))
        else:
            _print(found)


def _print(found: ShapeDependence) -> None:
    print_table(
        "ln L = c - alpha_N ln N + s x + q x^2, x = ln(width/depth) about its mean",
        ["constant", "value", f"{100 * found.confidence:g} % interval"],
        [
            _row(name, one)
            for name, one in (("alpha_N", found.alpha_n), ("s", found.slope), ("q", found.curvature))
        ],
    )
    print_table(
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
    print(
        f"By the regression the shapes measured differ by {100 * found.shape_spread:.2g} % of the loss{best}."
    )


def _row(name: str, one: Estimate) -> list[str]:
    return [name, f"{one.value:.4g}", f"{one.low:.4g} to {one.high:.4g}"]
