"""Answer lm-eval's probe requests: all tasks on one corpus in one forward pass."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import safe_name, write_atomically
from lmsat_plugin.harness.metadata_keys import check_metadata
from lmsat_plugin.hookspecs import CheckpointMeasured
from lmsat_plugin.measurement.engine import LoadedModel, measure_probes
from lmsat_plugin.measurement.execution import Execution, Processes
from lmsat_plugin.measurement.outcome import Outcome
from lmsat_plugin.measurement.references import References
from lmsat_plugin.model.anatomy import unwrap
from lmsat_plugin.model.divergence import naming_weights
from lmsat_plugin.model.head_files import RestrictedHead
from lmsat_plugin.model.loading import check_decoder
from lmsat_plugin.plugins import plugins
from lmsat_plugin.probe import CORPUS, Probe, Settings
from lmsat_plugin.results.array_files import pack_arrays
from lmsat_plugin.text.corpora import CorpusSettings

logger = logging.getLogger(__name__)

Text = tuple[CorpusSettings, int | None]
"""What one pass runs over: a corpus, and the number of its documents that lm-eval's ``--limit`` leaves."""


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """What a task asks of a model: a probe with its settings, on a corpus."""

    probe: str
    probe_settings: Settings
    corpus_settings: CorpusSettings
    limit: int | None
    metadata: dict[str, Any] = field(repr=False)
    # In a sweep these are about its first checkpoint, and the samples that lm-eval keeps hold the repr of a request.


def run_probe_requests(
    lm: HFLM, requests: Sequence[Instance], known_arguments: Collection[str] | None
) -> list[dict[str, float]]:
    """Answer the requests of all tasks, one each: a dict of metrics for each, the same on every process.

    Arrays and provenance are left on the model, as ``lm.lmsat_outcomes``. ``known_arguments`` are the model's own
    arguments, which lm-eval merges into the metadata; None if it does not know them.

    Raises `LmsatError` for a model that is no decoder, an unknown setting, two settings of one probe on one corpus, and
    for what cannot be measured.
    """
    if lm.backend == "seq2seq":
        pretrained = getattr(lm, "pretrained", None)
        check_decoder(lm.config, pretrained if isinstance(pretrained, str) else type(lm.model).__name__)
    if lm.backend != "causal" or not isinstance(unwrap(getattr(lm, "model", None)), PreTrainedModel):
        raise LmsatError(
            f"{type(lm).__name__} holds no decoder-only transformers model, which lmsat needs: run with --model lmsat"
        )
    asked: list[ProbeRequest] = [request.args[1] for request in requests]
    for request in asked:
        check_metadata(request.metadata, known_arguments)
    passes, own_pass = _sort_into_passes(asked)
    processes = Processes() if _is_tensor_parallel(lm) else Processes.current()
    execution = Execution(
        device=lm.device,
        batch_size=lm.batch_size,
        max_batch_size=lm.max_batch_size or 64,
        max_length=lm._max_length,
        prefix_token_id=lm.custom_prefix_token_id,
        autocast=lm.mixed_precision_dtype,
        processes=processes,
        corpora=plugins().corpora,
        origins=plugins().origins,
        references=getattr(lm, "lmsat_references", None) or _references_of(lm),
        cache=getattr(lm, "lmsat_cache", None),
    )
    name = f"{_name_of(lm)} {_revision_of(lm)}"
    adapter = getattr(lm, "lmsat_adapter", None)
    loaded = LoadedModel(model=lm.model, tokenizer=lm.tokenizer, name=name, adapter=adapter)
    with naming_weights(lm.model):
        outcomes = {
            text: measure_probes(loaded, probes, text[0], execution, limit=text[1]) for text, probes in passes.items()
        }
    for request, of_task, text in zip(requests, asked, own_pass, strict=True):
        # Readers find a task's notes and arrays by it.
        outcomes[text].provenance.setdefault("tasks", {})[request.task_name] = of_task.probe
    lm.lmsat_outcomes = list(outcomes.values())
    # Under tensor parallelism every process has measured the whole text.
    if Processes.current().rank == 0:
        _finish(lm)
    return [outcomes[text].measurements[request.probe].metrics for request, text in zip(asked, own_pass, strict=True)]


def _references_of(lm: HFLM) -> References | None:
    """Return how a model that is measured alone loads others; None for one of another class than lmsat's."""
    load = getattr(lm, "load_reference", None)
    return None if load is None else References(load=load)


def _sort_into_passes(asked: Sequence[ProbeRequest]) -> tuple[dict[Text, dict[str, Probe]], list[Text]]:
    """Return the probes of each pass by its text, and the text of each request."""
    passes: dict[Text, dict[str, Probe]] = {}
    own_pass: dict[int, Text] = {}
    # A probe of weights alone goes along with any corpus: it comes last.
    for index in sorted(range(len(asked)), key=lambda i: not plugins().probe(asked[i].probe).needs & CORPUS):
        request, kind = asked[index], plugins().probe(asked[index].probe)
        text = (request.corpus_settings, request.limit)
        if passes and not kind.needs & CORPUS:
            text = next(iter(passes))
        probe = passes.setdefault(text, {}).setdefault(request.probe, kind(request.probe_settings))
        if probe.settings != request.probe_settings:
            raise LmsatError(
                f"two tasks ask for the probe '{request.probe}' on one corpus with different settings: "
                "run them one after the other"
            )
        own_pass[index] = text
    return passes, [own_pass[index] for index in range(len(asked))]


def _finish(lm: HFLM) -> None:
    """Store the arrays and tell the plugins."""
    name, revision = _name_of(lm), _revision_of(lm)
    folder = getattr(lm, "arrays", None)
    for outcome in lm.lmsat_outcomes:
        # The measurement is made: neither a full disk nor a failing plugin may lose it.
        if folder is not None and outcome.arrays:
            try:
                outcome.provenance.update(_save_arrays(outcome, Path(folder), name, revision))
            except LmsatError as error:
                logger.error("The arrays are lost: %s", error)
        # What a plugin does to them does not become the result.
        measurements, provenance = copy.deepcopy((outcome.measurements, outcome.provenance))
        plugins().tell(
            CheckpointMeasured(model=name, revision=revision, measurements=measurements, provenance=provenance)
        )


def _save_arrays(outcome: Outcome, folder: Path, name: str, revision: str) -> dict[str, Any]:
    """Write the arrays; return what the result says of them."""
    data, binding = pack_arrays(outcome.arrays)
    # Named by content: another measurement of the same checkpoint never overwrites it.
    path = folder / f"{safe_name(name)}__{safe_name(revision)}__{binding['arrays_sha256'][:12]}.safetensors"
    write_atomically(path, data)
    return {"arrays": str(path.resolve()), **binding}


def provenance_of(lm: Any) -> dict[str, Any]:
    """Return what lmsat adds to the result file's config.

    ``lmsat`` is the provenance of the measurements, a list for several corpora, with ``downstream``, how
    log-likelihoods were computed; ``lmsat_head`` the rank and the kind of a head that ``head=FILE`` put in.
    """
    head: RestrictedHead | None = getattr(lm, "restricted_head", None)
    added: dict[str, Any] = {} if head is None else {"lmsat_head": asdict(head)}
    provenance = [outcome.provenance for outcome in getattr(lm, "lmsat_outcomes", [])]
    if (downstream := getattr(lm, "lmsat_downstream", None)) is not None:
        provenance = [{**each, "downstream": downstream} for each in provenance or [{}]]
    if provenance:
        added["lmsat"] = provenance[0] if len(provenance) == 1 else provenance
    return added


def _is_tensor_parallel(lm: HFLM) -> bool:
    """Return whether every process holds a part of the model and sees the same data."""
    return getattr(lm.model, "_tp_plan", None) is not None and getattr(lm.model, "_device_mesh", None) is not None


def _name_of(lm: HFLM) -> str:
    return lm.pretrained if isinstance(lm.pretrained, str) else lm.model.config._name_or_path or "model"


def _revision_of(lm: HFLM) -> str:
    return str(getattr(lm, "revision", None) or "main")
