"""Numbers of many things, such as layers or matrices, each computed by one of the processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lmsat_plugin.lazy import torch
from lmsat_plugin.measurement.execution import Processes
from lmsat_plugin.probe import ProbeContext, Sums


def shared_rows(context: ProbeContext, shape: tuple[int, int], compute: Callable[[int], Sequence[float]]) -> np.ndarray:
    """Return a row of numbers for each thing, float64, of this shape; all processes have to call and return the same.

    ``compute(i)`` returns the i-th row, in which NaN is a number that is missing.
    """
    sums = Sums(context, values=shape, missing=shape)
    processes = Processes.current() if context.synchronise else Processes()
    own = np.zeros(shape)
    for number in range(processes.rank, shape[0], processes.size):
        own[number] = compute(number)
    missing = np.isnan(own)
    sums.update(values=torch.from_numpy(np.where(missing, 0.0, own)), missing=torch.from_numpy(missing.astype(float)))
    totals = sums.totals()
    return np.where(totals["missing"].numpy() > 0, math.nan, totals["values"].numpy())
