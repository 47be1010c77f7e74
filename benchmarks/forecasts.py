"""How good forecasts of saturation are in hindsight, beside the base rate: published, simulated and own runs.

    python benchmarks/forecasts.py [--quick] [--runs 500] [--data DATA [--task T --metric M]] [--save NAME.json]
    python benchmarks/forecasts.py --draw NAME.json ... --figure docs/images/reliability.png

Prints the tables of docs/saturation.md: Brier scores of hindcasts from 30, 50 and 70 % of training, how often the
interval of the gain holds what was gained, and a reliability table, which --save keeps. --draw makes the figure of
several of these. DATA is what `lmsat saturation` reads.

Without it runs of 28 checkpoints are simulated. They fall as a power law. A third of them rises from a place between 35
and 85 % of training on, at once or over 15 % of it, by 2 to 6 standard deviations of the noise. A tenth has a bump of
that height that comes back. The noise is AR(1) with a correlation of 0, 0.2 or 0.4.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lmsat_plugin.analysis import find_saturation
from lmsat_plugin.analysis.input_tables import read_csv
from lmsat_plugin.analysis.saturation.hindcasts import (
    SHARES,
    ForecastClass,
    Hindcast,
    hindcasts,
    reliability,
    skill_of,
    widened,
)
from lmsat_plugin.analysis.stats.autoregressive import simulate
from lmsat_plugin.analysis.stats.bootstrap import CONFIDENCE
from lmsat_plugin.figures import write_figure
from lmsat_plugin.figures.reliability import reliability_figure
from lmsat_plugin.results import Results

_CHECKPOINTS = 28
_NOISE = 0.01
_AT_ONCE = 100
"""Simulated runs that are each other's base rate."""


def simulated(runs: int, seed: int = 0) -> pd.DataFrame:
    """Return the losses of runs of the mixture."""
    rng = np.random.default_rng(seed)
    share_K = np.arange(1, _CHECKPOINTS + 1) / _CHECKPOINTS
    parts = []
    for run in range(runs):
        curve_K = rng.uniform(20, 200) * (share_K / share_K[0]) ** -rng.uniform(0.3, 0.8)
        kind, height, start = rng.random(), rng.uniform(2, 6), rng.uniform(0.35, 0.85)
        if kind < 1 / 3:
            width = rng.choice([1e-9, 0.15])
            curve_K += height * np.clip((share_K - start) / width, 0, 1)
        elif kind < 1 / 3 + 0.1:
            curve_K += height * ((share_K > start) & (share_K < start + 0.15))
        noise_K = simulate(rng.standard_normal((1, _CHECKPOINTS)), rng.choice([0, 0.2, 0.4], 1))[0]
        losses_K = 3 + _NOISE * (curve_K + noise_K)
        parts.append(pd.DataFrame({"model": f"run {seed}.{run}", "step": 5000 * np.arange(1, 29), "loss": losses_K}))
    return pd.concat(parts)


def table(found: Sequence[Hindcast]) -> None:
    """Print the Brier scores and the coverage from each share."""
    heads = ("from", "hindcasts", "saturate", "Brier score", "of the base rate", "of the best constant")
    print(f"\n| {' | '.join(heads)} | gain within 90 %: own curve / widened |")
    print("| --- " * 7 + "|")
    for share in (*SHARES, None):
        own = [one for one in found if share in (None, one.share)]
        if not own:
            continue
        skill, happened = skill_of(own), float(np.mean([one.saturates for one in own]))
        held = [np.mean([_holds(one, found, wide=wide) for one in own]) for wide in (False, True)]
        where = "all" if share is None else f"{100 * share:.0f} %"
        print(
            f"| {where} | {len(own)} | {100 * happened:.0f} % | {skill.brier:.3f} | {skill.brier_base_rate:.3f} | "
            f"{happened * (1 - happened):.3f} | {100 * held[0]:.0f} / {100 * held[1]:.0f} % |"
        )
    skill = skill_of(found)
    errors = np.quantile([one.error for one in found], CONFIDENCE, method="inverted_cdf")
    print(f"\nnine tenths of the errors of the gain are at most {errors:.3f} of the loss")
    print(f"surely better than the base rate: {'yes' if skill.better else 'no'} ({skill.runs} runs)")


def _holds(one: Hindcast, found: Sequence[Hindcast], *, wide: bool) -> bool:
    """Return whether the interval of the gain, its own or the widened one, holds what was gained."""
    gain = widened(one.own, one.seen, [other for other in found if other.label != one.label]) if wide else one.own.gain
    return bool(gain.low <= one.observed_gain <= gain.high)


def print_reliability(classes: Sequence[ForecastClass]) -> None:
    """Print the mean forecast, the share that saturated and the number of hindcasts of each class."""
    print("\n| mean forecast | saturated | hindcasts |\n| --- | --- | --- |")
    for own in classes:
        print(f"| {100 * own.forecast:.0f} % | {100 * own.happened:.0f} % | {own.hindcasts} |")


def main() -> None:
    """Print the tables, or draw those that were saved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 simulated runs")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--data", type=Path, nargs="+")
    parser.add_argument("--task")
    parser.add_argument("--metric")
    parser.add_argument("--without", metavar="TEXT", help="leave out models with this in their names")
    parser.add_argument("--save", type=Path, help="keep the reliability table for --draw; its name is the title")
    parser.add_argument("--draw", type=Path, nargs="+", help="draw saved reliability tables, and do nothing else")
    parser.add_argument("--figure", type=Path, default=Path("reliability.png"))
    args = parser.parse_args()
    if args.draw:
        saved = {path.stem: json.loads(path.read_text("utf-8")) for path in args.draw}
        classes = {name: [ForecastClass(*own) for own in rows] for name, rows in saved.items()}
        write_figure(reliability_figure(classes), args.figure)
        return
    found: list[Hindcast] = []
    runs = 20 if args.quick else args.runs
    for seed in range(-(-runs // _AT_ONCE) if args.data is None else 0):
        table_of_runs = simulated(min(_AT_ONCE, runs - seed * _AT_ONCE), seed)
        found += hindcasts(find_saturation(table_of_runs), repetitions=args.repetitions)
    for path in args.data or ():
        data = read_csv(path) if path.suffix == ".csv" else Results.read(path)
        verdicts = find_saturation(data, args.task, args.metric)
        if args.without:
            verdicts = [one for one in verdicts if args.without not in one.model]
        for shots in dict.fromkeys(one.num_fewshot for one in verdicts):
            found += hindcasts([one for one in verdicts if one.num_fewshot == shots], repetitions=args.repetitions)
    table(found)
    classes = reliability(found)
    print_reliability(classes)
    if args.save is not None:
        args.save.write_text(json.dumps(classes), "utf-8")


if __name__ == "__main__":
    main()
