"""What a sweep measures of each checkpoint: tasks on corpora, sorted into calls of lm-eval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.files import FileStamp
from lmsat_plugin.harness.metadata_keys import check_metadata
from lmsat_plugin.harness.probe_tasks import ProbeTasks, find_probe_tasks
from lmsat_plugin.harness.task_files import stamps_of
from lmsat_plugin.plugins import plugins, use_probe_files
from lmsat_plugin.probe import CORPUS, WINDOWS, Need
from lmsat_plugin.settings import Settings, parse_own
from lmsat_plugin.sweeps.config import SweepConfig, TaskEntry
from lmsat_plugin.sweeps.jobs import model_args
from lmsat_plugin.text.corpora import CorpusSettings

if TYPE_CHECKING:
    from lmsat_plugin.harness.shared_tasks import SharedTasks


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A task on one corpus with one number of shots, which is measured as a whole or not at all."""

    task: str
    version: Any
    probe: str | None
    needs: Need | None
    """What the probe needs; None for a task of lm-eval's."""
    num_fewshot: int | None
    files: tuple[tuple[Path, FileStamp | None], ...] = ()
    """The user's files that make the task, as they were before they were read."""

    @property
    def reads_corpus(self) -> bool:
        """Whether it is a probe that depends on the corpus."""
        return self.needs is not None and bool(self.needs & CORPUS)

    @property
    def reads_windows(self) -> bool:
        """Whether it is a probe that depends on where the prefix token stands."""
        return self.needs is not None and bool(self.needs & WINDOWS)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Units that lm-eval evaluates together: one call, one pass over the corpus, one result file."""

    corpus: CorpusSettings
    num_fewshot: int | None
    units: tuple[Unit, ...]


def find_batches(config: SweepConfig) -> list[Batch]:
    """Sort a configuration's tasks into calls of lm-eval: by corpus, for probes that read one, and by shots.

    Raises `LmsatError` for a task or a setting that is not there or not right.
    """
    wanted = [*config.tasks, *(TaskEntry(task=plugins().probe(name).task()) for name in use_probe_files(config.probes))]
    tasks = _find_tasks(config, [entry.task for entry in wanted])
    arguments = {key for entry in config.models for key in model_args(config, entry)}
    corpora = config.corpus_settings()
    texts = list({corpus.text: corpus for corpus in reversed(corpora)}.values())[::-1]
    units: dict[tuple[CorpusSettings, int | None], dict[str, Unit]] = {}
    for entry in wanted:
        for name in tasks.resolve([entry.task]):
            probe = tasks.probe_of(name)
            shots = config.num_fewshot
            if probe is None:
                shots = entry.num_fewshot if entry.num_fewshot is not None else shots
            else:
                check_metadata(config.metadata, arguments)
                probe_settings(probe, config.metadata)
            files = stamps_of(tasks.files_of(name))
            unit = Unit(
                task=name,
                version=tasks.version_of(name),
                probe=probe,
                needs=None if probe is None else plugins().probe(probe).needs,
                num_fewshot=shots if probe is None else None,
                files=files,
            )
            for corpus in corpora if unit.reads_windows else texts if unit.reads_corpus else corpora[:1]:
                units.setdefault((corpus, shots), {})[name] = unit
    return [
        Batch(corpus=corpus, num_fewshot=shots, units=tuple(group.values())) for (corpus, shots), group in units.items()
    ]


def _find_tasks(config: SweepConfig, wanted: list[str]) -> ProbeTasks | SharedTasks:
    if (tasks := find_probe_tasks(wanted, config.include_path)) is not None:
        return tasks
    from lmsat_plugin.harness.shared_tasks import SharedTasks

    return SharedTasks(wanted, config.include_path, dict(config.metadata))


def probe_settings(probe: str, metadata: dict[str, Any]) -> Settings:
    """Return a probe's settings, those in ``metadata`` checked. Raises `LmsatError` for a wrong value."""
    return parse_own(plugins().probe(probe).settings_type, metadata)


def reference_setting(unit: Unit, config: SweepConfig) -> str:
    """Return what a probe's setting says of the checkpoint beside which others are seen; empty if it needs none."""
    if unit.probe is None or unit.needs is None or not unit.needs & Need.REFERENCE:
        return ""
    return str(getattr(probe_settings(unit.probe, config.metadata), "reference", ""))
