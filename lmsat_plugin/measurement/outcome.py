"""What a measurement returns: metrics and arrays by probe, and the provenance that says how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from lmsat_plugin.measurement.execution import Execution
from lmsat_plugin.metrics import task_of_probe
from lmsat_plugin.model.anatomy import Anatomy
from lmsat_plugin.model.computing_type import name_of, stored_type
from lmsat_plugin.model.lm_head import is_tied
from lmsat_plugin.model.size import size_of
from lmsat_plugin.probe import CORPUS, WINDOWS, Measurement, Probe, ProbeContext
from lmsat_plugin.probe_files import source_sha256
from lmsat_plugin.version import __version__

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outcome:
    """The measurements of one checkpoint by probe, and their provenance."""

    measurements: dict[str, Measurement]
    provenance: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        """All scalars, named ``task/metric`` as in results of lm-eval, sweeps and the Trainer's callback."""
        notes = self.provenance.get("probes", {})
        return {
            f"{notes.get(name, {}).get('task', task_of_probe(name))}/{key}": value
            for name, measurement in self.measurements.items()
            for key, value in measurement.metrics.items()
        }

    @property
    def arrays(self) -> dict[str, Any]:
        """All arrays, named ``probe/array``."""
        return {f"{name}/{key}": value for name, m in self.measurements.items() for key, value in m.arrays.items()}

    def to_frame(self) -> pd.DataFrame:
        """Return the scalars as a table with the columns task, metric, value."""
        import pandas as pd

        rows = [(*name.split("/", 1), value) for name, value in self.metrics.items()]
        return pd.DataFrame(rows, columns=["task", "metric", "value"])


def describe_run(
    context: ProbeContext, probes: Mapping[str, Probe], anatomy: Anatomy | None, execution: Execution
) -> dict[str, Any]:
    """Return the provenance of a measurement: versions, settings, text, model, and how its parts were found."""
    model = context.model
    provenance: dict[str, Any] = {
        "lmsat_version": __version__,
        "commit": getattr(model.config, "_commit_hash", None),
        "dtype": name_of(model.dtype),
        "stored_dtype": stored_type(model),
        "tied_head": is_tied(model),
        "vocab_rows": context.vocab_rows,
        "vocab_rows_padded": model.get_input_embeddings().weight.shape[0],
        "probes": {
            name: {
                "version": probe.version,
                "settings": probe.identifying(probe.settings),
                "reads_corpus": bool(probe.needs & CORPUS),
                "reads_windows": bool(probe.needs & WINDOWS),
                "origin": execution.origins.get(f"probe:{name}", type(probe).__module__),
                **({"task": probe.task()} if probe.is_expensive else {}),
                **({} if (source := source_sha256(type(probe))) is None else {"source_sha256": source}),
            }
            for name, probe in probes.items()
        },
        "processes": execution.processes.size,
        "model": size_of(model),
    }
    if context.corpus is not None:
        provenance["corpus"] = context.corpus.provenance
    if anatomy is not None:
        provenance["head_form"] = (
            "verified against the model's logits" if anatomy.head else "unknown: the model's own logits"
        )
        provenance["layer_states"] = "inputs of the blocks" if anatomy.blocks else "output_hidden_states"
        provenance["loss_dtype"] = "float64" if model.dtype == torch.float64 else "float32"
    return provenance
