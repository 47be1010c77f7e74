"""An example of a plugin for lmsat: a probe, a corpus, a figure, and a log. Each function is one hook."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lmsat_plugin import CheckpointMeasured, CorpusRegistry, FigureRegistry, ProbeRegistry, hookimpl


@hookimpl
def lmsat_register_probes(registry: ProbeRegistry) -> None:
    """Add the probe of the task ``lmsat_principal_component``."""
    from lmsat_probe_example.probe import PrincipalComponentProbe

    registry.add(PrincipalComponentProbe)


@hookimpl
def lmsat_register_corpora(registry: CorpusRegistry) -> None:
    """Add the corpus that ``--metadata corpus=zen`` takes."""
    from lmsat_probe_example.corpus import zen

    registry.add("zen", zen)


@hookimpl
def lmsat_register_figures(registry: FigureRegistry) -> None:
    """Add the share by training step to reports of results that have it."""
    from lmsat_probe_example.figure import share_by_step

    shares = registry.results[registry.results.metric == "share_last"]
    if shares.step.notna().any():
        registry.add(share_by_step(shares))


@hookimpl
def lmsat_checkpoint_measured(event: CheckpointMeasured) -> None:
    """Append the numbers, as a line of JSON, to the file that ``LMSAT_EXAMPLE_LOG`` names, if it is set."""
    if path := os.environ.get("LMSAT_EXAMPLE_LOG"):
        metrics = {name: measurement.metrics for name, measurement in event.measurements.items()}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"model": event.model, "revision": event.revision, **metrics}) + "\n")
