"""How often verdicts of saturation are wrong: false alarms and rises that are found, over trends and correlations.

    python benchmarks/verdicts.py [--quick] [--runs 400] [--checkpoints 28] [--rivals]

Prints a table for docs/saturation.md, with --rivals one of other methods (saturation_rivals.py) for each correlation,
and the CPU time of a verdict beside that of scipy's `curve_fit` of a + b t^-c. Each run has a trend and AR(1) noise of
standard deviation 1. A healthy run that is called saturating is a false alarm. In a risen one the last seventh to third
of the checkpoints lie 3 standard deviations above the mean of the five before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from saturation_rivals import RIVALS, Rival
from scipy.optimize import curve_fit

from lmsat_plugin.analysis.saturation.preparation import Cells
from lmsat_plugin.analysis.saturation.rise import RISE, SIGNIFICANT, rise_of
from lmsat_plugin.analysis.stats.autoregressive import simulate

_BEFORE = 5
_REPETITIONS = 500


def _power_law(rng: np.random.Generator, share_K: np.ndarray) -> np.ndarray:
    return rng.uniform(20, 200) * (share_K / share_K[0]) ** -rng.uniform(0.3, 0.8)


def _plateau(rng: np.random.Generator, share_K: np.ndarray) -> np.ndarray:
    curve_K = _power_law(rng, share_K)
    return np.maximum(curve_K, curve_K[rng.integers(len(share_K) // 4, len(share_K))])


def _cosine(rng: np.random.Generator, share_K: np.ndarray) -> np.ndarray:
    return _power_law(rng, share_K) + rng.uniform(0, 20) * np.cos(np.pi * share_K / 2) ** 2


def _decay(rng: np.random.Generator, share_K: np.ndarray) -> np.ndarray:
    return _power_law(rng, share_K) - rng.uniform(3, 20) * np.clip((share_K - 0.8) / 0.2, 0, 1)


def _bump(rng: np.random.Generator, share_K: np.ndarray) -> np.ndarray:
    start = rng.uniform(0.2, 0.5)
    return _power_law(rng, share_K) + rng.uniform(3, 15) * ((share_K > start) & (share_K < start + 0.2))


TRENDS: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "flat": lambda rng, share_K: np.zeros(len(share_K)),
    "power law": _power_law,
    "power law, then a plateau": _plateau,
    "cosine schedule": _cosine,
    "decay in the last fifth": _decay,
    "a bump that comes back": _bump,
}


def _risen(rng: np.random.Generator, curve_K: np.ndarray, noise_K: np.ndarray) -> np.ndarray:
    size = len(curve_K)
    late = int(rng.integers(max(4, round(size / 7)), max(5, round(size / 3)) + 1))
    values_K = curve_K + noise_K
    before = values_K[-late - _BEFORE : -late].mean()
    values_K[-late:] = before + RISE + noise_K[-late:]
    return values_K


def _called(values_K: np.ndarray) -> bool:
    """Return whether a run of evenly spaced checkpoints is called saturating, as far as its noise goes."""
    at_K = np.arange(1, len(values_K) + 1) * 5000
    cells = Cells.of(at_K, values_K)
    return rise_of(cells, at_K, cells.weights_CK @ values_K, _REPETITIONS).p_value < SIGNIFICANT


def _lmsat(runs_RK: np.ndarray, phi: float) -> np.ndarray:
    return np.array([_called(values_K) for values_K in runs_RK])


def shares(trend: str, checkpoints: int, phi: float, runs: int, call: Rival = _lmsat) -> tuple[float, float]:
    """Return the share of false alarms, and that of rises that are found, by a method (`saturation_rivals.Rival`)."""
    rng = np.random.default_rng(0)
    share_K = np.arange(1, checkpoints + 1) / checkpoints
    curves_RK = np.array([TRENDS[trend](rng, share_K) for _ in range(runs)])
    noise_RK = simulate(rng.standard_normal((runs, checkpoints)), np.full(runs, phi))
    risen_RK = np.array([_risen(rng, *pair) for pair in zip(curves_RK, noise_RK, strict=True)])
    return float(call(curves_RK + noise_RK, phi).mean()), float(call(risen_RK, phi).mean())


def print_rivals(trends: list[str], phi: float, checkpoints: int, runs: int) -> None:
    """Print a table of lmsat and its rivals, by trend."""
    print(f"\n| {checkpoints} checkpoints, φ = {phi:g}: false alarms / rises found (%) | {' | '.join(trends)} |")
    print("| --- |" + " --- |" * len(trends))
    for name, call in {"lmsat": _lmsat, **RIVALS}.items():
        pairs = [shares(trend, checkpoints, phi, runs, call) for trend in trends]
        cells = " | ".join(f"{100 * alarms:.0f} / {100 * hits:.0f}" for alarms, hits in pairs)
        print(f"| {name} | {cells} |", flush=True)


def print_time(checkpoints: int, runs: int = 40) -> None:
    """Print the CPU time of a verdict, simulations of flat runs done, and its ratio to that of scipy's fit."""
    rng, share_K = np.random.default_rng(0), np.arange(1, checkpoints + 1) / checkpoints
    series = [300 + _power_law(rng, share_K) + rng.standard_normal(checkpoints) for _ in range(runs)]

    def theirs(values_K: np.ndarray) -> None:
        start = values_K[-1], np.ptp(values_K), 0.5
        curve_fit(lambda t, a, b, c: a + b * (t ** -abs(c) - 1), share_K, values_K, start, maxfev=5000)

    seconds = []
    for call in (_called, theirs):
        for values_K in series:
            call(values_K)
        begin = time.process_time()
        for values_K in series:
            call(values_K)
        seconds.append((time.process_time() - begin) / runs)
    ratio = seconds[0] / seconds[1]
    print(
        f"\nverdict on {checkpoints} checkpoints: {1e3 * seconds[0]:.1f} ms of CPU, {ratio:.1f} times scipy's curve_fit"
    )


def main() -> None:
    """Print false alarms and rises that are found, in per cent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="40 runs each, of two trends")
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[15, 28, 60])
    parser.add_argument("--correlations", type=float, nargs="+", default=[0, 0.2, 0.4, 0.6])
    parser.add_argument("--rivals", action="store_true", help="print tables of other methods, too")
    args = parser.parse_args()
    runs, trends = (40, ["flat", "power law"]) if args.quick else (args.runs, list(TRENDS))
    for checkpoints in args.checkpoints:
        heads = " | ".join(f"φ = {phi:g}" for phi in args.correlations)
        print(f"\n| {checkpoints} checkpoints: false alarms / rises found (%) | {heads} |")
        print("| --- |" + " --- |" * len(args.correlations))
        for trend in trends:
            pairs = [shares(trend, checkpoints, phi, runs) for phi in args.correlations]
            cells = " | ".join(f"{100 * alarms:.1f} / {100 * hits:.0f}" for alarms, hits in pairs)
            print(f"| {trend} | {cells} |", flush=True)
        for phi in args.correlations if args.rivals else ():
            print_rivals(trends, phi, checkpoints, runs)
        print_time(checkpoints)


if __name__ == "__main__":
    main()
