"""What of a measurement is written where results lack only what their probe has gained since they were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmsat_plugin.plugins import plugins
from lmsat_plugin.results.failures import ADDITION
from lmsat_plugin.results.reading import NO_METRICS
from lmsat_plugin.sweeps.plan import PlannedResult


def only_asked(
    asked: Sequence[PlannedResult], results: dict[str, Any], arrays: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return results and arrays without the values of probes of which only groups of `Probe.additions` were asked for.

    What was measured before stands: it is not written again.
    """
    groups: dict[str, list[PlannedResult]] = {}
    for result in asked:
        groups.setdefault(result.unit.task, []).append(result)
    probes = {of_task[0].unit.probe for of_task in groups.values() if any(ADDITION not in r.identity for r in of_task)}
    values, kept_arrays = dict(results["results"]), dict(arrays)
    for task, of_task in groups.items():
        name = of_task[0].unit.probe
        if name is None or name in probes:
            continue
        additions = plugins().probe(name).additions
        kept = {value for result in of_task for value in additions[result.identity[ADDITION]]}
        values[task] = {key: value for key, value in values[task].items() if _metric(key) in kept | NO_METRICS}
        for array in arrays:
            probe, _, own = array.partition("/")
            if probe == name and own not in kept:
                kept_arrays.pop(array, None)
    return {**results, "results": values}, kept_arrays


def _metric(key: str) -> str:
    """Return the metric of an entry of lm-eval's, also where it is the standard error that lm-eval adds."""
    return key.partition(",")[0].removesuffix("_stderr")
