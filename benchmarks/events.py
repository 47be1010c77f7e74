"""How often an event of a metric is named that is none, how many turns and jumps are found, and how good intervals are.

    python benchmarks/events.py [--quick] [--runs 200] [--metrics 30] [--checkpoints 15 28 60]

Prints two tables for docs/saturation.md. A run has so many metrics, each a trend without an event (those of verdicts.py
that neither turn nor jump, rising or falling) and noise of its own. A run in which any event is named is a false alarm.
Noise is AR(1) with φ, and beside it what the method does not assume: tails of Student's t, noise that grows, a random
walk. In the second table one metric of a run has an event at a random place between 35 and 65 % of the run: it is found
if an event of its kind is named among all tests of the run, and its interval should hold the place.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from verdicts import TRENDS

from lmsat_plugin.analysis.saturation.preparation import Cells
from lmsat_plugin.analysis.saturation.turns import Turn, turns_of
from lmsat_plugin.analysis.stats.autoregressive import simulate
from lmsat_plugin.analysis.stats.differences import SIGNIFICANT, holm

SMOOTH = ("flat", "power law", "power law, then a plateau", "cosine schedule", "decay in the last fifth")
_TESTS = 3

Noise = Callable[[np.random.Generator, int], np.ndarray]


def _correlated(phi: float) -> Noise:
    return lambda rng, size: simulate(rng.standard_normal((1, size)), np.array([phi]))[0]


NOISES: dict[str, Noise] = {
    **{f"φ = {phi:g}": _correlated(phi) for phi in (0, 0.2, 0.4, 0.6)},
    "φ = 0.8": _correlated(0.8),
    "t with 3 degrees of freedom": lambda rng, size: rng.standard_t(3, size) / 3**0.5,
    "growing from 0.3 to 1": lambda rng, size: rng.standard_normal(size) * np.linspace(0.3, 1, size),
    "a random walk": lambda rng, size: np.cumsum(rng.standard_normal(size)),
}


def _turn(share_K: np.ndarray, place: float, size: float) -> np.ndarray:
    fall, rise = np.log(place / share_K) / np.log(place / share_K[0]), np.log(share_K / place) / np.log(1 / place)
    return size * np.where(share_K < place, fall, rise)


def _bowl(share_K: np.ndarray, place: float, size: float) -> np.ndarray:
    return size * (np.log(share_K / place) / np.log(1 / place)) ** 2


def _ramp(share_K: np.ndarray, place: float, size: float) -> np.ndarray:
    return size * np.clip((share_K - place) / (3 / len(share_K)) + 0.5, 0, 1)


EVENTS: dict[str, tuple[str, Callable[[np.ndarray, float, float], np.ndarray]]] = {
    "a turn, sharp": ("turns up", _turn),
    "a turn, round": ("turns up", _bowl),
    "a jump": ("jumps up", lambda share_K, place, size: size * (share_K >= place)),
    "a jump over three checkpoints": ("jumps up", _ramp),
    "a jump of a falling curve": (
        "jumps up",
        lambda share_K, place, size: 20 * share_K**-0.5 + size * (share_K >= place),
    ),
}
"""Name, kind, and the curve by the share of training, the place of the event and its size in standard deviations."""


def tested(values_K: np.ndarray) -> tuple[list[Turn], np.ndarray, np.ndarray]:
    """Return what is below 5 % of one metric at evenly spaced checkpoints, and the places of cells, from and to."""
    at_K = np.arange(1, len(values_K) + 1) * 5000
    cells = Cells.of(at_K, values_K)
    at_C = at_K[cells.last_C].astype(np.float64)
    return turns_of(at_C, cells.weights_CK @ values_K)[1], at_K[cells.first_C], at_K[cells.last_C]


def false_alarms(noise: Noise, checkpoints: int, runs: int, metrics: int) -> tuple[float, float]:
    """Return the share of runs with any event after Holm's correction, and of metrics with p below 5 % without it."""
    rng = np.random.default_rng(0)
    share_K = np.arange(1, checkpoints + 1) / checkpoints
    called = below = 0
    for _ in range(runs):
        p_values = []
        for _ in range(metrics):
            trend = TRENDS[SMOOTH[rng.integers(len(SMOOTH))]](rng, share_K) * rng.choice([-1, 1])
            found = tested(trend + noise(rng, checkpoints))[0]
            p_values += [turn.p_value for turn in found]
            below += bool(found)
        corrected = holm(np.array([*p_values, *np.ones(_TESTS * metrics - len(p_values))]))
        called += bool((corrected < SIGNIFICANT).any())
    return called / runs, below / runs / metrics


def found(name: str, size: float, phi: float, checkpoints: int, runs: int, metrics: int) -> tuple[float, float, float]:
    """Return the share of events that are found, of their intervals that hold the place, and the mean interval."""
    rng = np.random.default_rng(1)
    share_K = np.arange(1, checkpoints + 1) / checkpoints
    kind, curve = EVENTS[name]
    widths, held = [], 0
    for _ in range(runs):
        place = rng.uniform(0.35, 0.65)
        turns, first_C, last_C = tested(curve(share_K, place, size) + _correlated(phi)(rng, checkpoints))
        for turn in turns:
            # The smallest p of a run has to be below 5 % over the number of tests.
            if turn.kind == kind and turn.p_value * _TESTS * metrics < SIGNIFICANT:
                low, high = first_C[turn.low] / (5000 * checkpoints), last_C[turn.high] / (5000 * checkpoints)
                widths.append(high - low)
                held += bool(low <= place <= high)
    return len(widths) / runs, held / max(1, len(widths)), float(np.mean(widths)) if widths else float("nan")


def main() -> None:
    """Print false alarms, and what is found, in per cent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 runs of 10 metrics, 28 checkpoints")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--metrics", type=int, default=30)
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[15, 28, 60])
    parser.add_argument("--sizes", type=float, nargs="+", default=[6, 12, 30])
    args = parser.parse_args()
    runs, metrics, lengths = (20, 10, [28]) if args.quick else (args.runs, args.metrics, args.checkpoints)
    heads = " | ".join(f"{length} checkpoints" for length in lengths)
    print(
        f"| runs of {metrics} metrics without an event, in which one is named / metrics with p < 0.05 (%) | {heads} |"
    )
    print("| --- |" + " --- |" * len(lengths))
    for name, noise in NOISES.items():
        pairs = [false_alarms(noise, length, runs, metrics) for length in lengths]
        print(f"| {name} | {' | '.join(f'{100 * run:.1f} / {100 * one:.1f}' for run, one in pairs)} |", flush=True)
    sizes = " | ".join(f"{length} checkpoints, {size:g} σ" for length in lengths for size in args.sizes)
    print(f"\n| found / its place in the interval (%), interval as a share of the run (%) | {sizes} |")
    print("| --- |" + " --- |" * len(lengths) * len(args.sizes))
    for name in EVENTS:
        cells = []
        for length in lengths:
            for size in args.sizes:
                share, held, width = found(name, size, 0.2, length, runs, metrics)
                cells.append(f"{100 * share:.0f} / {100 * held:.0f}, {100 * width:.0f}" if share else "0")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
