"""``lmsat fit``: scaling laws, with intervals and warnings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.arguments import add_data, read_data
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.direct_scores import direct_answer
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError

_OF_DIRECT = ("fit_models", "predict_model", "loss", "task", "metric")
"""The options that the law ``direct`` alone takes."""


class FitCommand(AnsweringCommand):
    """Fit a scaling law to losses: the least sum of Huber losses (delta 0.001) of log residuals.

    chinchilla  L = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022); columns n_params, tokens
    kaplan-n    L = (N_c/N)^alpha_N (Kaplan et al. 2020, eq. 1.1); n_params_non_embedding
    kaplan-d    L = (D_c/D)^alpha_D (eq. 1.2); tokens
    kaplan-c    L = (C_c/C)^alpha_C (eq. 3.3); pf_days, or flops, or 6ND
    kaplan-nd   L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D (eq. 1.5); n_params_non_embedding, tokens
    kaplan-ns   L = (N_c/N)^alpha_N + (S_c/S_min)^alpha_S (eq. 1.6); n_params_non_embedding, s_min, or steps with
                batch_tokens
    context     L = a + b T^-c (Sec. D.5), of each model; position, from 1 on
    isoflop     the size of least loss at each compute, and N_opt ~ C^a (Hoffmann et al. 2022, Approach 2); n_params,
                and flops or tokens
    curve       the learning curve of each run, L = E + B t^-c, or a power law with a break, and the step at which it
                slows down; step or tokens
    direct      -ln Q = A/C^alpha of scores, with Q = (score - chance) / (1 - chance), at each ratio of tokens to
                parameters, and -ln Q = A/N^alpha + B/D^beta over all (Krajewski et al. 2025); task, metric, score, and
                flops, or n_params and tokens; beside lmsat emergence --two-step
    transfer    other_loss = offset + slope * loss (Sec. 3.2.2); other_loss, and tokens for the offset's drift

    Every law but direct reads the columns model (or run) and loss, in nats per token, of a CSV, or lmsat_loss of a
    results tree.
    The intervals (90 %) come from a bootstrap, which draws all rows of a run together. A constant of which the points
    say nothing has none, and the reason is given. Rows beyond ten robust standard deviations are named, with the
    constants without them. --robust leaves out runs above the frontier, such as those that were under-tuned, in every
    sample of the bootstrap. A prediction has two intervals: that of a new run, and that of the law.
    """

    name = "fit"
    help = "scaling laws"
    examples = (
        "lmsat fit chinchilla losses.csv",
        "lmsat fit curve results/ --at 143000",
        "lmsat fit direct scores.csv --predict-model 13B",
    )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the law, the data, what is given, what is to be predicted, and the bootstrap."""
        parser.add_argument("law", metavar="LAW", help="one of these laws")
        add_data(parser, "a CSV, a folder with result files, or one file")
        parser.add_argument("--given", default="", metavar="NAME=VALUE,...", help="constants that are not fitted")
        parser.add_argument(
            "--predict", metavar="DATA", help="predict the losses of these rows, and their gaps to the law"
        )
        parser.add_argument(
            "--repetitions", type=int, default=1000, metavar="N", help="how often the bootstrap draws (default: 1000)"
        )
        parser.add_argument(
            "--at",
            type=float,
            metavar="X",
            help="curve: predict the loss at this step, or tokens; direct: the score at this compute, in operations",
        )
        parser.add_argument(
            "--robust", action="store_true", help="leave out runs above the frontier, as those that were under-tuned"
        )
        models = "models, or sizes as a column size names them"
        parser.add_argument("--fit-models", metavar="NAME,...", help=f"direct: {models}, to fit (default: all others)")
        parser.add_argument("--predict-model", metavar="NAME,...", help=f"direct: {models}, to predict")
        parser.add_argument("--loss", metavar="METRIC", help="direct: the loss of the predictions in two steps")
        parser.add_argument("--task", metavar="GLOB", help="direct: take only tasks with such names")
        parser.add_argument("--metric", metavar="GLOB", help="direct: take only metrics with such names")

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the fit, and what it predicts."""
        if args.law == "direct":
            _check_options(args, ("given", "predict", "robust"))
            return direct_answer(args)
        for name in _OF_DIRECT:
            if getattr(args, name) is not None:
                raise LmsatError(f"--{name.replace('_', '-')} goes with lmsat fit direct: leave it out")
        if args.law == "isoflop":
            return _isoflop(args)
        if args.law == "curve":
            return _curves(args)
        if args.at is not None:
            raise LmsatError("--at goes with lmsat fit curve and lmsat fit direct: leave it out")
        from lmsat_plugin.analysis.scaling_laws import LAWS, fit

        if args.law not in LAWS:
            raise LmsatError(
                f"'{args.law}' is not a law: give one of {', '.join((*LAWS, 'isoflop', 'curve', 'direct'))}"
            )
        law = fit(args.law, read_data(args), _given(args.given), repetitions=args.repetitions, robust=args.robust)
        predictions = None if args.predict is None else law.predict(read_data(args, [args.predict]))
        data = law.to_dict() | ({} if predictions is None else predictions.to_dict())
        parts = [part for fitted in (data, *data["others"]) for part in _parts(fitted)]
        if predictions is not None:
            parts.append(_predictions(data))
        return Answer(data=data, parts=parts, result=law, options={"predictions": predictions})


def _isoflop(args: argparse.Namespace) -> Answer:
    """Return the optima of each compute, and their exponents."""
    from lmsat_plugin.analysis.scaling_laws.isoflops import fit_isoflops

    _check_options(args, ("given", "predict", "robust", "at"))
    result = fit_isoflops(read_data(args), repetitions=args.repetitions)
    data = result.to_dict()
    rows = [
        [
            _cell(one["flops"]),
            one["n_points"],
            *(_cell(one[name]) for name in ("n_opt", "tokens", "loss")),
            _range((one["low"], one["high"])),
        ]
        for one in data["computes"]
    ]
    optima = TextTable(
        "Size of least loss", ["FLOP", "runs", "N_opt", "tokens", "loss", "90 % interval of N_opt"], rows
    )
    exponents = [[name, _cell(data[name]["value"]), _interval(data[name])] for name in ("a", "b")]
    title = "N_opt ~ C^a, D_opt ~ C^b"
    parts = [optima, TextTable(title, ["constant", "value", "90 % interval"], exponents)]
    noise = f"noise of the losses about the parabolas: {data['noise']:.4g}"
    return Answer(data=data, parts=[*parts, noise, *(f"warning: {text}" for text in data["warnings"])], result=result)


def _curves(args: argparse.Namespace) -> Answer:
    """Return the learning curves of runs."""
    from lmsat_plugin.analysis.scaling_laws.run_curves import fit_curves

    _check_options(args, ("given", "predict", "robust"))
    results = fit_curves(read_data(args), at=args.at, repetitions=args.repetitions)
    data = [result.to_dict() for result in results]
    rows = [
        [
            *(row["model"], row["form"], ", ".join(f"{name} = {value:.4g}" for name, value in row["params"].items())),
            *(_cell(row["deceleration"]["value"]), _interval(row["deceleration"])),
            *(_cell(row["at"]), _cell(row["final"]["value"]), _interval(row["final"])),
            None if row["held_out"] is None else f"{100 * row['held_out']['gap']:+.2f}",
        ]
        for row in data
    ]
    columns = ["model", "form", "constants", "slows down at", "90 % interval", data[0]["axis"], "loss", "90 % interval"]
    title = "Learning curves: saturating, L = E + B t^-c, or broken, L = B t^-c (1 + (t/d)^(1/f))^(c_drop f)"
    table = TextTable(title, [*columns, "gap from the first half %"], rows)
    note = (
        "In the midst of a learning-rate schedule the loss is higher than at the end of one: a curve knows no schedule."
    )
    return Answer(data=data, parts=[table, note], result=results)


def _check_options(args: argparse.Namespace, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(args, name):
            raise LmsatError(f"{args.law} takes no --{name}: leave it out")


def _given(text: str) -> dict[str, float]:
    """Return the constants in ``A=1,B=2``. Raises `LmsatError` for a part that is not NAME=NUMBER."""
    constants = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            constants[name.strip()] = float(value)
        except ValueError:
            raise LmsatError(
                f"--given {part} does not name a constant and its number: write B=410.7,beta=0.28"
            ) from None
    return constants


def _parts(law: dict[str, Any]) -> Iterator[TextTable | str]:
    subject = law["model"] or law["n"]
    spread, condition, objective = law["spread"], law["condition_number"], law["objective"]
    close = f"within {100 * spread['tolerance']:g} % of the objective"
    rows = [
        [name, _cell(param["value"]), _interval(param), _range(spread["params"].get(name, (None, None)))]
        for name, param in (law["params"] | law["derived"]).items()
    ]
    title = f"{law['formula']}{f', {subject}' if subject else ''}"
    yield TextTable(title, ["constant", "value", f"{100 * law['confidence']:g} % interval", close], rows)
    runs = "" if law["n_runs"] == law["n_points"] else f" of {law['n_runs']} runs"
    yield (
        f"{law['n_points']} points{runs}, residuals {law['residual_rms']:.4g} (rms of log loss); {objective['what']} "
        f"(delta {objective['delta']:g}) {objective['value']:.6e}, from {spread['best']} of {spread['starts']} starts"
    )
    if condition["all"] is not None:
        exponents = "" if condition["exponents"] is None else _cell(condition["exponents"])
        yield f"condition number {condition['all']:.4g}, of the exponents alone {exponents}"
    if held_out := law["held_out"]:
        trimmed = f", {held_out['n_trimmed']} above the frontier left out" if held_out["n_trimmed"] else ""
        yield (
            f"fitted without the {held_out['by']} (points: {held_out['n_points']}{trimmed}): gap there "
            f"{100 * held_out['mean_gap']:+.2f} % (mean), {100 * held_out['mean_absolute_gap']:.2f} % (mean size)"
        )
    if far := law["outliers"]:
        constants = ", ".join(f"{name} = {value:.4g}" for name, value in far["params"].items())
        yield f"beyond ten robust standard deviations: {_named(far['rows'])}; without {_them(far['rows'])}: {constants}"
    if law["trimmed"] is not None:
        yield f"left out above the frontier (points: {len(law['trimmed'])}): {_named(law['trimmed']) or 'none'}"
    for kind in ("notes", "warnings"):
        for sentence in law[kind]:
            yield f"{kind[:-1]}: {sentence}"


def _predictions(data: dict[str, Any]) -> TextTable:
    """Return the gaps at the best and final checkpoints, or each row's gap where checkpoints are not known."""
    if gaps := data.get("gaps"):
        means = {"model": "mean", "best": gaps["mean_best"], "final": gaps["mean_final"]}
        return TextTable(
            "Gap to the law by checkpoint",
            ["model", "best %", "final %"],
            [[row["model"], 100 * row["best"], 100 * row["final"]] for row in (*gaps["models"], means)],
        )
    rows = data["predictions"]
    shown = [name for name in rows[0] if name not in ("low", "high", "mean_low", "mean_high", "gap")]
    columns: dict[str, list[Any]] = {name: [_cell(row[name]) for row in rows] for name in shown}
    columns["90 % of new runs"] = [_range((row["low"], row["high"])) for row in rows]
    columns["90 % of the law"] = [_range((row["mean_low"], row["mean_high"])) for row in rows]
    columns["gap %"] = [None if row["gap"] is None else 100 * row["gap"] for row in rows]
    return TextTable.of_columns("Predictions", columns)


_MOST_NAMED = 8


def _named(rows: list[dict[str, Any]]) -> str:
    """Return points in words, the farthest first."""
    shown = rows[:_MOST_NAMED]
    models = ["" if row["model"] is None else f" ({row['model']})" for row in shown]
    names = [f"row {row['row']}{model}, {row['deviations']:+.0f}" for row, model in zip(shown, models, strict=True)]
    return "; ".join(names + [f"{len(rows) - _MOST_NAMED} more"] * (len(rows) > _MOST_NAMED))


def _them(rows: list[dict[str, Any]]) -> str:
    return "it" if len(rows) == 1 else "them"


def _cell(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float) else value


def _interval(param: dict[str, Any]) -> str | None:
    return "given" if param.get("given") else _range((param["low"], param["high"]))


def _range(ends: tuple[float | None, float | None]) -> str | None:
    return None if None in ends else f"{ends[0]:.4g} to {ends[1]:.4g}"
