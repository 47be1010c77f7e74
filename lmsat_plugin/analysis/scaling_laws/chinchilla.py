"""The law `chinchilla` of Hoffmann et al. 2022: the loss of N parameters, with embeddings, after D tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmsat_plugin.analysis.scaling_laws.allocation import Chinchilla
from lmsat_plugin.analysis.scaling_laws.forms import PowerSum, Term
from lmsat_plugin.analysis.scaling_laws.laws import NON_EMBEDDING, TOTAL, Law, Points

GOPHER_FLOPS = 5.88e23
"""The compute of Gopher, for which Chinchilla was planned."""


def compute_optimal(values: Mapping[str, np.ndarray], points: Points, counts_RG: np.ndarray) -> dict[str, np.ndarray]:
    """Return a and b of N_opt ∝ C^a and D_opt ∝ C^b, and D_opt/N_opt at two computes (eq. 4).

    The computes C = 6ND are Gopher's, and the largest among the points. NaN for exponents that are not above 0.
    """
    constants: dict[str, Any] = dict(values)
    law = Chinchilla(name="fit", **constants)
    sound_R = (values["alpha"] > 0) & (values["beta"] > 0) & (values["A"] > 0) & (values["B"] > 0)
    derived = {}
    with np.errstate(all="ignore"):
        derived["a"], derived["b"] = law.exponent, 1 - law.exponent
        largest = float((6 * points.values["N"] * points.values["D"]).max())
        for name, flops in (("gopher", GOPHER_FLOPS), ("largest", largest)):
            derived[f"tokens_per_parameter_{name}"] = flops / 6 / np.square(law.n_opt(flops))
    return {name: np.where(sound_R, value_R, np.nan) for name, value_R in derived.items()}


CHINCHILLA = Law(
    name="chinchilla",
    formula="L = E + A/N^alpha + B/D^beta",
    form=PowerSum((Term("E"), Term("A", "alpha", "N"), Term("B", "beta", "D"))),
    columns={"N": TOTAL, "D": "tokens"},
    size="N",
    counts=(TOTAL, NON_EMBEDDING),
    derive=compute_optimal,
)
"""Eq. 2, fitted as in Sec. 3.3."""
