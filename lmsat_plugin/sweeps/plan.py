"""What a sweep has to do: the settings that identify each result of each checkpoint, and the results still missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.metadata_keys import FILES
from lmsat_plugin.harness.task_files import stamps_of
from lmsat_plugin.plugins import plugins
from lmsat_plugin.probe_files import source_sha256
from lmsat_plugin.results.failures import ADDITION, is_diverged
from lmsat_plugin.series.checkpoint import Series
from lmsat_plugin.sweeps.config import Options, SweepConfig
from lmsat_plugin.sweeps.jobs import Job, find_entry, jobs_of
from lmsat_plugin.sweeps.named_inputs import INPUTS, by_content
from lmsat_plugin.sweeps.prefixes import auto_prefix, with_prefix
from lmsat_plugin.sweeps.references import find_outside, find_reference, order_of
from lmsat_plugin.sweeps.store import Store
from lmsat_plugin.sweeps.stored import AUTO_PREFIX, Identity, Stored, canonical
from lmsat_plugin.sweeps.units import Batch, Unit, find_batches, probe_settings, reference_setting
from lmsat_plugin.text.corpora import CorpusSettings, HubCorpus, corpus_files, load_corpus
from lmsat_plugin.version import __version__

# Arguments of the model that say how it runs, not what comes out.
_HOW = {
    *("device", "batch_size", "max_batch_size", "parallelize", "device_map", "tp_plan", "logits_cache"),
    *("max_memory_per_gpu", "max_cpu_memory", "offload_folder", "trust_remote_code", "attn_implementation"),
}
_UNKNOWN = "unknown"
# What of them only a log-likelihood of whole texts sees.
_ROLLING = "rolling_prefix"
# What of them a probe of weights alone does not see.
_OF_TEXT = {"max_length", "prefix_token_id", "add_bos_token", "truncation"}


class PlannedResult(NamedTuple):
    """One result of one checkpoint: the number of its batch in the plan, its task, and what identifies it."""

    batch: int
    unit: Unit
    identity: Identity


class Plan:
    """A configuration worked out.

    Raises `LmsatError` for a model, a revision, a task, a corpus or a setting that is not there or not right.
    """

    def __init__(self, config: SweepConfig) -> None:
        self.config = config
        self._texts: dict[CorpusSettings, tuple[Any, ...]] = {}
        """The files of each corpus, as they were when it was read."""
        self.batches = find_batches(config)
        self._auto: dict[Job, str] = {}
        """What ``prefix=auto`` is for a checkpoint, where that is known."""
        self._weights: dict[Job, tuple[Any, str]] = {}
        """What identifies the weights of references whose files were read, each with what these looked like."""
        self._known_weights: dict[Job, tuple[Any, str | None]] = {}
        """What identifies the weights of references, with the state of the files and results that it was read from."""
        self._found_references: dict[tuple[Job, str], Job | str] = {}
        self._outside = cache(find_outside)

    @cached_property
    def jobs(self) -> list[Job]:
        """The selected checkpoints, model by model, in the order of training."""
        return jobs_of(self.config, self.series)

    @cached_property
    def series(self) -> list[Series]:
        """The checkpoints of each model, with what is left out."""
        return [find_entry(entry) for entry in self.config.models]

    def look_again(self) -> list[Job]:
        """Return the selected checkpoints that are there by now."""
        for name in ("jobs", "series"):
            self.__dict__.pop(name, None)
        self._found_references.clear()
        self._outside = cache(find_outside)
        return self.jobs

    def seen(self, job: Job) -> Any:
        """Return what a checkpoint and its references look like now: where it changes, there may be more to measure."""
        references = [self.reference(job, setting) for setting in self.reference_settings]
        named = [each if isinstance(each, str) else (each.label, _stamp(each)) for each in references]
        return _stamp(job), named

    @cached_property
    def reference_settings(self) -> list[str]:
        """What the settings of probes say of the checkpoints beside which others are seen, each once."""
        units = (unit for batch in self.batches for unit in batch.units)
        return list(filter(None, dict.fromkeys(reference_setting(unit, self.config) for unit in units)))

    def in_order(self, jobs: Sequence[Job]) -> list[Job]:
        """Return jobs in an order in which references are measured first, as far as there is one."""
        return order_of(self.reference_settings, jobs)

    def reference(self, job: Job, setting: str) -> Job | str:
        """Return the checkpoint that a setting names as a job's reference, or why there is none."""
        key = (job, setting)
        if key not in self._found_references:
            self._found_references[key] = find_reference(setting, job, self.jobs, self._outside)
        return self._found_references[key]

    def note_weights(self, reference: Job, stamp: Any, weights: str) -> None:
        """Note what identifies the weights of a reference, whose files had this stamp when they were read."""
        self._weights[reference] = stamp, weights

    def weights_of(self, reference: Job) -> str | None:
        """Return what identifies a reference's weights, if that is known without reading them."""
        files = _stamp(reference)
        if reference in self._weights and self._weights[reference][0] == files:
            return self._weights[reference][1]
        store, checkpoint = Store(self.config.output), reference.checkpoint
        stamps = (store.stamp(checkpoint), files)
        if self._known_weights.get(reference, ((), None))[0] != stamps:
            known = reference.known_weights(store.read(checkpoint)) or store.recall_reference(checkpoint, files)
            self._known_weights[reference] = stamps, known
        return self._known_weights[reference][1]

    def loaded(self, job: Job, weights: str | None) -> str | None:
        """Return what identifies a checkpoint as it is loaded; None if its weights are not known."""
        if weights is None:
            return None
        args = {key: value for key, value in by_content(job.model_args).items() if key not in _HOW}
        return canonical({"weights": weights, "model_args": args, "lmsat": __version__})

    @cached_property
    def of_each_checkpoint(self) -> list[PlannedResult]:
        """All results of a checkpoint, with the part of their identities that is the same for every checkpoint."""
        return [
            PlannedResult(number, unit, identity)
            for number, batch in enumerate(self.batches)
            for unit in batch.units
            for identity in self._with_additions(unit, self._shared_identity(batch, unit))
        ]

    @cached_property
    def _corpora(self) -> dict[CorpusSettings, dict[str, Any]]:
        return {
            batch.corpus: {**batch.corpus.model_dump(exclude={"prefix"}), "sha256": self._digest(batch.corpus)}
            for batch in self.batches
            if any(unit.reads_corpus for unit in batch.units)
        }

    def _with_additions(self, unit: Unit, identity: Identity) -> list[Identity]:
        """Return the identity of a result, and of each group of values that its probe has gained since."""
        if unit.probe is None:
            return [identity]
        asked = plugins().probe(unit.probe).asked_additions(probe_settings(unit.probe, self.config.metadata))
        return [identity, *({**identity, ADDITION: name} for name in asked)]

    def _shared_identity(self, batch: Batch, unit: Unit) -> Identity:
        config = self.config
        identity: Identity = {"task": unit.task, "version": unit.version}
        if unit.probe is None:
            own = {key for probe in plugins().probes.values() for key in probe.settings_type.model_fields}
            own |= CorpusSettings.model_fields.keys() | set(FILES)
            identity.update(
                num_fewshot=unit.num_fewshot,
                limit=config.limit,
                metadata={key: value for key, value in config.metadata.items() if key not in own},
                chat=[config.apply_chat_template, config.fewshot_as_multiturn, config.system_instruction],
                gen_kwargs=config.gen_kwargs,
            )
        else:
            settings = probe_settings(unit.probe, config.metadata)
            identity["settings"] = plugins().probe(unit.probe).identifying(settings)
            if unit.reads_corpus:
                identity.update(corpus=self._corpora[batch.corpus], limit=config.limit)
            kind = plugins().probe(unit.probe)
            if (source := source_sha256(kind)) is not None:
                identity["source_sha256"] = source
            others = kind.other_corpora(settings, batch.corpus)
            identity.update({f"{name}_sha256": self._digest(corpus) for name, corpus in others.items()})
        return identity

    def work(self, job: Job, weights: str | None) -> list[PlannedResult]:
        """Return everything to be measured of a checkpoint, each once. ``weights`` is a commit or a hash."""
        args = {key: value for key, value in by_content(job.model_args).items() if key not in _HOW}
        of_tasks = {key: value for key, value in args.items() if (key, value) != (_ROLLING, "document")}
        args.pop(_ROLLING, None)
        without_text = {key: value for key, value in args.items() if key not in _OF_TEXT}
        found: dict[str, PlannedResult] = {}
        for result in self.of_each_checkpoint:
            unit = result.unit
            seen = of_tasks if unit.probe is None else args if unit.reads_corpus else without_text
            identity = {**result.identity, "weights": weights, "model_args": seen}
            if setting := reference_setting(unit, self.config):
                reference = self.reference(job, setting)
                # That there is none is known; what is not known yet is like no result.
                known = None if isinstance(reference, str) else self.weights_of(reference) or _UNKNOWN
                identity["reference"] = known
            if unit.reads_windows:
                policy = self.batches[result.batch].corpus.prefix
                identity = with_prefix(identity, self._auto.get(job, policy) if policy == "auto" else policy)
            text = canonical(identity)
            found.setdefault(text, result._replace(identity=json.loads(text)))
        return list(found.values())

    def find_auto_prefix(self, job: Job, folder: Path) -> str | None:
        """Find what ``prefix=auto`` is for a checkpoint whose files are in a folder; None if no probe reads windows."""
        if not any(unit.reads_windows for batch in self.batches for unit in batch.units):
            return None
        if (policy := auto_prefix(job, folder)) is not None:
            self._auto[job] = policy
        return policy

    def recall_auto_prefix(self, job: Job, stored: Stored) -> None:
        """Take it from results of another checkpoint of the same files and arguments, if they note it."""
        noted = {policy for policy in (known.get(AUTO_PREFIX) for known in stored.checkpoints) if policy is not None}
        if len(noted) == 1:
            self._auto[job] = str(noted.pop())

    def _look_up_auto_prefix(self, job: Job, stored: Stored) -> None:
        """Find it for results of earlier versions, which do not note it: by the tokenizer."""
        if job in self._auto or not stored.tokenizers_of_old:
            return
        if any(batch.corpus.prefix == "auto" and any(u.reads_windows for u in batch.units) for batch in self.batches):
            policy = auto_prefix(job, job.checkpoint.folder, stored.tokenizers_of_old)
            if policy is not None:
                self._auto[job] = policy

    def pending(
        self, job: Job, stored: Stored, weights: str | None, options: Options | None = None
    ) -> list[PlannedResult]:
        """Return what is not measured yet, known failures included.

        With ``options``: what is to be measured now. What failed is left out unless it is to be tried again, and
        what is to be measured again is included, but nothing that the same run has measured or tried already.
        """
        self._look_up_auto_prefix(job, stored)
        done, failed = set(stored.done), set()
        if options is not None:
            if options.force:
                done = {text for text, name in stored.done.items() if stored.runs[name] == options.run}
            failed = set(stored.failed)
            if (options.force or options.retry_failed) and stored.failed_run != options.run:
                # That a run diverged is final until its files change.
                failed = set() if options.force else {text for text in failed if is_diverged(stored.failed[text])}
        return [
            result
            for result in self.work(job, weights)
            if (text := canonical(result.identity)) not in done and text not in failed
        ]

    def failures(self, job: Job, stored: Stored, weights: str | None) -> list[tuple[Identity, str]]:
        """Return what is known to fail, with the reasons, and was not measured in spite of it."""
        self._look_up_auto_prefix(job, stored)
        return [
            (result.identity, stored.failed[text])
            for result in self.work(job, weights)
            if (text := canonical(result.identity)) in stored.failed and text not in stored.done
        ]

    def check_inputs(self, job: Job, results: Sequence[PlannedResult]) -> None:
        """Raise `LmsatError` if a file that results depend on, besides the checkpoint's, has changed."""
        for corpus, stamps in self._texts.items():
            if corpus_files(corpus, plugins().corpora) != stamps:
                raise LmsatError(f"corpus={corpus.corpus} changed while it was measured: start the sweep again")
        for result in results:
            if changed := next(
                (path for path, stamp in result.unit.files if stamps_of([path]) != ((path, stamp),)), None
            ):
                raise LmsatError(
                    f"{changed}, of the task {result.unit.task}, changed while it was measured: start the sweep again"
                )
        if named := [name for name in INPUTS if name in job.model_args]:
            now = self.work(job, results[0].identity["weights"])
            if any(result not in now for result in results):
                values = ", ".join(f"{name}={job.model_args[name]}" for name in named)
                raise LmsatError(f"{values} changed while it was measured: start the sweep again")

    def _digest(self, settings: CorpusSettings) -> str | None:
        """Return a hash of a corpus' text; None for one of the Hub, which its name and settings stand for."""
        sources = plugins().corpora
        if isinstance(sources.get(settings.corpus), HubCorpus):
            return None
        self._texts[settings] = corpus_files(settings, sources)
        digest = hashlib.sha256()
        for document in load_corpus(settings, sources).documents:
            data = document.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(data) + data)
        return digest.hexdigest()

    def metadata(self, batch: Batch, job: Job) -> dict[str, Any]:
        """Return what lm-eval's ``--metadata`` would be: the model's arguments among it."""
        corpus = batch.corpus.model_dump(exclude_none=True) | {"max_tokens": batch.corpus.max_tokens}
        return {**job.model_args, "pretrained": job.checkpoint.pretrained, **self.config.metadata, **corpus}


def _stamp(job: Job) -> Any:
    """Return what a checkpoint's files look like now; None for one of the Hub, which its commit identifies."""
    return None if job.checkpoint.on_hub else job.stamp()
