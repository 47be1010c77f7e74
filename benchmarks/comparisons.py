"""How often `lmsat compare` finds what is there, and what is not, on real differences by document.

    python benchmarks/comparisons.py RESULTS [--pairs 500]

RESULTS is a tree of one or more series with losses by document, such as `lmsat demo --long` leaves. Of neighbouring
checkpoints at the middle and the end of each series, the differences by document get random signs, which makes pairs of
models without a difference. "Different" at 5 % is to be said of 3 to 7 %. Of these pairs with the smallest detectable
difference added, 75 to 85 % are to be found. Beside it stands Student's t with the standard error of the ratio, and
how large that standard error is, paired over unpaired, for all neighbours: at most a third. Prints a table for
docs/comparing.md.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np
from scipy.stats import t

from lmsat_plugin.analysis.saturation.by_model import document_losses
from lmsat_plugin.analysis.stats.differences import SIGNIFICANT
from lmsat_plugin.analysis.stats.randomisation import detectable, sign_test
from lmsat_plugin.analysis.stats.ratio import ratio_stderr
from lmsat_plugin.results.series import labelled
from lmsat_plugin.results.tree import Results

_REPETITIONS = 1999


def rates(differences_M: np.ndarray, tokens_M: np.ndarray, pairs: int, seed: int) -> tuple[float, float, float]:
    """Return the shares called different without a difference, found with one, and the first by Student's t."""
    rng = np.random.default_rng(seed)
    said = found = by_t = 0
    size = len(tokens_M)
    for _ in range(pairs):
        own_M = differences_M * rng.choice([-1, 1], size)
        p = sign_test(own_M, _REPETITIONS)
        said += p <= SIGNIFICANT
        by_t += abs(own_M.sum() / tokens_M.sum()) > t.isf(SIGNIFICANT / 2, size - 1) * ratio_stderr(own_M, tokens_M)
        smallest = detectable(own_M, tokens_M, around_zero=p > SIGNIFICANT)
        found += sign_test(own_M + smallest * tokens_M, _REPETITIONS) <= SIGNIFICANT
    return said / pairs, found / pairs, by_t / pairs


def main() -> None:
    """Print a row for each series and place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("--pairs", type=int, default=500)
    arguments = parser.parse_args()
    results = Results.read(arguments.results)
    documents = document_losses(results)
    table = labelled(results.series)
    losses = table[(table.task == "lmsat_loss") & (table.metric == "loss") & table.path.isin(documents)]
    print("| series | documents | largest | between | different (%) | by t (%) | found (%) | paired/unpaired |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for model, own in losses.groupby("model"):
        own = own.sort_values("at")
        nats_KM = np.array([documents[path][0] for path in own.path])
        tokens_M = np.asarray(documents[own.path.iloc[0]][1], dtype=np.float64)
        shares = [
            ratio_stderr(after - before, tokens_M) / np.hypot(*ratio_stderr(np.array([before, after]), tokens_M))
            for before, after in pairwise(nats_KM)
        ]
        spread = f"{min(shares):.2f} to {max(shares):.2f}, {np.mean(np.array(shares) <= 1 / 3):.0%} at most 1/3"
        for place in (len(nats_KM) // 2, len(nats_KM) - 2):
            said, found, by_t = rates(nats_KM[place + 1] - nats_KM[place], tokens_M, arguments.pairs, place)
            steps = f"{own['at'].iloc[place]:.0f}, {own['at'].iloc[place + 1]:.0f}"
            print(
                f"| {model} | {len(tokens_M)} | {tokens_M.max() / tokens_M.sum():.0%} | {steps} | {100 * said:.1f} | "
                f"{100 * by_t:.1f} | {100 * found:.1f} | {spread} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
