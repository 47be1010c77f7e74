"""What a sweep has to do: checkpoints × tasks × corpora, and what identifies each result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.downstream import FILES
from lmsat_plugin.harness.probe_requests import check_metadata
from lmsat_plugin.harness.shared_tasks import SharedTasks
from lmsat_plugin.plugins import plugins
from lmsat_plugin.probe import CORPUS, Need
from lmsat_plugin.settings import parse_own
from lmsat_plugin.sweeps.checkpoints import Checkpoint, find_checkpoints
from lmsat_plugin.sweeps.fingerprint import known_files, stamp_of
from lmsat_plugin.sweeps.selection import select
from lmsat_plugin.sweeps.store import Identity, Stored, canonical
from lmsat_plugin.text.corpora import CorpusSettings, HubCorpus, load_corpus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmsat_plugin.sweeps.config import ModelEntry, SweepConfig

_OF_THE_SWEEP = {"pretrained", "revision", "batch_size", "max_batch_size", "device", "arrays"}
# Arguments of the model that say how it runs, not what comes out.
_HOW = {
    *("device", "batch_size", "max_batch_size", "parallelize", "device_map", "tp_plan", "logits_cache"),
    *("max_memory_per_gpu", "max_cpu_memory", "offload_folder", "trust_remote_code", "attn_implementation"),
}
# What of them a probe of weights alone does not see.
_OF_TEXT = {"max_length", "prefix_token_id", "add_bos_token", "truncation"}


@dataclass(frozen=True)
class Unit:
    """A task on one corpus with one number of shots, which is measured as a whole or not at all."""

    task: str
    version: Any
    probe: str | None
    needs: Need | None
    """What the probe needs; None for a task of lm-eval's."""
    num_fewshot: int | None

    @property
    def reads_corpus(self) -> bool:
        """Whether it is a probe that depends on the corpus."""
        return self.needs is not None and bool(self.needs & CORPUS)


@dataclass(frozen=True)
class Batch:
    """Units that lm-eval evaluates together: one call, one pass over the corpus, one result file."""

    corpus: CorpusSettings
    num_fewshot: int | None
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Job:
    """One checkpoint to measure, with the model arguments it is loaded with."""

    checkpoint: Checkpoint
    model_args: dict[str, Any] = field(hash=False)

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.checkpoint.model} {self.checkpoint.revision}"

    @property
    def facts(self) -> dict[str, Any]:
        """What results say of the checkpoint, as far as it is known without reading the weights."""
        names = ("model", "revision", "step", "tokens", "commit")
        facts = {name: getattr(self.checkpoint, name) for name in names}
        return (
            facts if self.checkpoint.folder is None else {**facts, "files": stamp_of(self.checkpoint.folder)}
        )

    def known_weights(self, stored: Stored) -> str | None:
        """Return what identifies the weights, if that is known without reading them."""
        if self.checkpoint.folder is None:
            return self.checkpoint.commit
        return (known_files(self.checkpoint.folder, stored.checkpoints) or {}).get("identity")


class Plan:
    """A configuration worked out.

    Raises:
        LmsatError: For a model, a revision, a task, a corpus or a setting that is not there or not right.
    """

    def __init__(self, config: SweepConfig) -> None:
        self.config = config
        self.batches = _batches(config)

    @cached_property
    def jobs(self) -> list[Job]:
        """The selected checkpoints, model by model, in the order of training."""
        return find_jobs(self.config)

    @cached_property
    def _parts(self) -> list[tuple[int, Unit, Identity]]:
        """All units, with what of their identity is the same for every checkpoint."""
        return [
            (number, unit, self._part(batch, unit))
            for number, batch in enumerate(self.batches)
            for unit in batch.units
        ]

    @cached_property
    def _corpora(self) -> dict[CorpusSettings, dict[str, Any]]:
        return {
            batch.corpus: {**batch.corpus.model_dump(), "sha256": _digest(batch.corpus)}
            for batch in self.batches
            if any(unit.reads_corpus for unit in batch.units)
        }

    def _part(self, batch: Batch, unit: Unit) -> Identity:
        config = self.config
        found: dict[str, Any] = {"task": unit.task, "version": unit.version}
        if unit.probe is None:
            own = {key for probe in plugins().probes.values() for key in probe.settings_type.model_fields}
            own |= CorpusSettings.model_fields.keys() | set(FILES)
            found.update(
                num_fewshot=unit.num_fewshot,
                limit=config.limit,
                metadata={key: value for key, value in config.metadata.items() if key not in own},
                chat=[config.apply_chat_template, config.fewshot_as_multiturn, config.system_instruction],
                gen_kwargs=config.gen_kwargs,
            )
        else:
            settings = found["settings"] = _probe_settings(unit.probe, config.metadata)
            if unit.reads_corpus:
                found.update(corpus=self._corpora[batch.corpus], limit=config.limit)
            if (name := settings.get("train_corpus")) is not None:
                text = batch.corpus.model_copy(
                    update={"corpus": name, "max_tokens": settings["train_tokens"]}
                )
                found["train_corpus_sha256"] = _digest(text)
        return found

    def work(self, job: Job, weights: str | None) -> list[tuple[int, Unit, Identity]]:
        """Return everything to be measured of a checkpoint: batch numbers, units, and identities.

        An identity is all that a unit's result depends on. ``weights`` is a commit or a hash.
        """
        args = {key: value for key, value in job.model_args.items() if key not in _HOW}
        if "head" in args:
            args["head"] = _sha256_of(Path(args["head"]).expanduser())
        without_text = {key: value for key, value in args.items() if key not in _OF_TEXT}
        return [
            (
                number,
                unit,
                json.loads(
                    canonical(
                        {
                            **part,
                            "weights": weights,
                            "model_args": args if unit.probe is None or unit.reads_corpus else without_text,
                        }
                    )
                ),
            )
            for number, unit, part in self._parts
        ]

    def pending(
        self,
        job: Job,
        stored: Stored,
        weights: str | None,
        *,
        force: bool = False,
        retry_failed: bool = True,
        run: str = "",
    ) -> list[tuple[int, Unit, Identity]]:
        """Return what is neither measured nor, unless it is to be retried, known to fail.

        ``force`` measures again what is done. What ``run`` itself has measured or tried is neither measured nor
        tried again.
        """
        done = {text for text, name in stored.done.items() if not force or stored.runs[name] == run}
        failed = () if retry_failed and stored.failed_run != run else stored.failed
        return [
            item
            for item in self.work(job, weights)
            if (text := canonical(item[2])) not in done and text not in failed
        ]

    def failures(self, job: Job, stored: Stored, weights: str | None) -> list[tuple[Identity, str]]:
        """Return what is known to fail, with the reasons, and was not measured in spite of it."""
        return [
            (identity, stored.failed[text])
            for *_, identity in self.work(job, weights)
            if (text := canonical(identity)) in stored.failed and text not in stored.done
        ]

    def metadata(self, batch: Batch, job: Job) -> dict[str, Any]:
        """Return what lm-eval's ``--metadata`` would be: the model's arguments among it."""
        corpus = batch.corpus.model_dump(exclude_none=True) | {"max_tokens": batch.corpus.max_tokens}
        return {**job.model_args, "pretrained": job.checkpoint.pretrained, **self.config.metadata, **corpus}


def find_jobs(config: SweepConfig) -> list[Job]:
    """Return the selected checkpoints of a configuration."""
    jobs: list[Job] = []
    for entry in config.models:
        found = find_checkpoints(
            entry.pretrained,
            name=entry.name,
            tokens_per_step=entry.tokens_per_step,
            step_pattern=entry.step_pattern,
        )
        args = _model_args(config, entry)
        jobs += [Job(checkpoint, args) for checkpoint in select(found, entry.revisions)]
    seen: dict[tuple[str, str], Job] = {}
    for job in jobs:
        key = (job.checkpoint.model, job.checkpoint.revision)
        if key in seen and seen[key] != job:
            raise LmsatError(
                f"two models of the sweep are called '{key[0]}' and have a checkpoint '{key[1]}': "
                "give one of them another `name`"
            )
        seen[key] = job
    return list(seen.values())


def _model_args(config: SweepConfig, entry: ModelEntry) -> dict[str, Any]:
    args = {**config.model_args, **entry.model_args}
    if misplaced := _OF_THE_SWEEP & args.keys():
        raise LmsatError(
            f"model_args: '{min(misplaced)}' is the sweep's business: remove it, or set it as a key of its own"
        )
    if entry.tokenizer is not None:
        args["tokenizer"] = entry.tokenizer
    return args


def _batches(config: SweepConfig) -> list[Batch]:
    """Sort the tasks into calls of lm-eval: by corpus, for probes that read one, and by number of shots."""
    wanted = [entry.task for entry in config.tasks]
    tasks = SharedTasks(wanted, config.include_path, dict(config.metadata))
    arguments = {key for entry in config.models for key in _model_args(config, entry)}
    corpora = config.corpus_settings()
    units: dict[tuple[CorpusSettings, int | None], dict[str, Unit]] = {}
    for entry in config.tasks:
        shots = config.num_fewshot if entry.num_fewshot is None else entry.num_fewshot
        for name in tasks.resolve([entry.task]):
            probe = tasks.probe_of(name)
            needs = None if probe is None else plugins().probe(probe).needs
            if probe is not None:
                check_metadata(config.metadata, arguments)
                _probe_settings(probe, config.metadata)
                shots = config.num_fewshot
            unit = Unit(name, tasks.version_of(name), probe, needs, None if probe else shots)
            for corpus in corpora if unit.reads_corpus else corpora[:1]:
                units.setdefault((corpus, shots), {})[name] = unit
    return [Batch(corpus, shots, tuple(found.values())) for (corpus, shots), found in units.items()]


def _probe_settings(probe: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return parse_own(plugins().probe(probe).settings_type, metadata).model_dump(mode="json")


def _digest(settings: CorpusSettings) -> str | None:
    """Return a hash of a corpus' text; None for one of the Hub, which its name and settings stand for."""
    sources = plugins().corpora
    if isinstance(sources.get(settings.corpus), HubCorpus):
        return None
    digest = hashlib.sha256()
    for document in load_corpus(settings, sources).documents:
        data = document.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()


def _sha256_of(head: Path) -> str:
    try:
        return _sha256(head, head.stat().st_mtime_ns)
    except OSError as error:
        raise LmsatError(f"head={head} cannot be read ({error.strerror}): correct its name") from error


@lru_cache
def _sha256(path: Path, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def share(jobs: Sequence[Job], shard: tuple[int, int] | None) -> list[Job]:
    """Return the part ``(i, n)``, counted from 1, of the jobs: every n-th, so that parts are alike."""
    return list(jobs) if shard is None else list(jobs[shard[0] - 1 :: shard[1]])
