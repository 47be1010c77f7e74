"""The jobs of a sweep: each a selected checkpoint with the model arguments that it is loaded with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lmsat_plugin.conversion.recipe import Recipe
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.checkpoint_files import holds_config, holds_weights
from lmsat_plugin.results.checkpoint_names import averaging_of
from lmsat_plugin.series.checkpoint import Checkpoint, Series
from lmsat_plugin.series.finding import find_series
from lmsat_plugin.series.on_hub import asks_for_commits
from lmsat_plugin.series.selection import select
from lmsat_plugin.sweeps.config import ModelEntry, Options, SweepConfig
from lmsat_plugin.sweeps.fingerprint import RECIPE, Stamp, is_same_base, known_files, on_base, stamp_of
from lmsat_plugin.sweeps.stored import Stored, canonical

_OF_THE_SWEEP = {"pretrained", "revision", "batch_size", "max_batch_size", "device", "arrays"}


@dataclass(frozen=True)
class Job:
    """One checkpoint to measure, with the model arguments it is loaded with."""

    checkpoint: Checkpoint
    model_args: dict[str, Any] = field(hash=False)
    recipe: Recipe | None = field(default=None, hash=False)
    """How it is converted where it is in a training format."""

    @property
    def label(self) -> str:
        """The checkpoint's name for people."""
        return f"{self.checkpoint.model} {self.checkpoint.name}"

    def describe(self) -> dict[str, Any]:
        """Return what results note of the checkpoint, as far as it is known without looking at its files."""
        checkpoint = self.checkpoint
        named = {"model": checkpoint.model, "revision": checkpoint.revision}
        where = {name: getattr(checkpoint, name) for name in ("within", "subfolder")}
        where = {name: value for name, value in where.items() if value is not None}
        return {**named, **checkpoint.place, "commit": checkpoint.commit, **where}

    @property
    def load_args(self) -> dict[str, Any]:
        """The arguments of ``--model lmsat`` that load this checkpoint."""
        checkpoint = self.checkpoint
        has_ref = checkpoint.commit is not None or checkpoint.parts
        where = {"revision": checkpoint.ref if has_ref else None, "subfolder": checkpoint.subfolder}
        named = {name: value for name, value in where.items() if value is not None}
        return {"pretrained": checkpoint.pretrained, **self.model_args, **named}

    def known_weights(self, stored: Stored) -> str | None:
        """Return what identifies the weights, if that is known without reading them."""
        if self.checkpoint.on_hub:
            noted = [known for known in stored.checkpoints if known.get("base")]
            same = (on_base(self.checkpoint.content, known) for known in noted if is_same_base(known["base"]))
            return next(same, None if noted else self.checkpoint.content)
        return (known_files(self.stamp(), stored.checkpoints) or {}).get("identity")

    @property
    def parts(self) -> tuple[Job, ...]:
        """The checkpoints that an average is made of, each under a name that says so; () for all others."""
        name = self.checkpoint.name
        own = (replace(part, within="/".join(filter(None, (name, part.within)))) for part in self.checkpoint.parts)
        return tuple(replace(self, checkpoint=part) for part in own)

    @property
    def converts(self) -> bool:
        """Whether the checkpoint is to be converted: it is none that transformers reads, and it is said how."""
        folder = self.checkpoint.folder
        return self.recipe is not None and folder is not None and not (holds_config(folder) and holds_weights(folder))

    def part_stamps(self) -> list[Stamp | str | None]:
        """Return what the files of an average's parts look like now; of those on the Hub what identifies them."""
        return [part.stamp() if part.checkpoint.folder else part.checkpoint.content for part in self.parts]

    def over_parts(self, stamps: Sequence[Stamp | str | None]) -> Stamp:
        """Return the stamp of an average whose parts have these."""
        digest = hashlib.sha256(canonical({"parts": list(stamps)}).encode()).hexdigest()
        return {f"{averaging_of(self.checkpoint.revision)} of {digest}": []}

    def stamp(self) -> Stamp:
        """Return what the files of a checkpoint look like now, and how they are converted; of an average its parts'."""
        checkpoint = self.checkpoint
        if checkpoint.parts:
            return self.over_parts(self.part_stamps())
        assert checkpoint.folder is not None
        if not self.converts:
            return stamp_of(checkpoint.folder)
        return self.with_recipe(stamp_of(checkpoint.folder, whole=True))

    def with_recipe(self, stamp: Stamp) -> Stamp:
        """Return a stamp that is another one for files that are converted in another way."""
        return {**stamp, f"{RECIPE}{self.recipe.digest}": []} if self.recipe is not None else stamp

    def has_noted_files(self, stored: Stored) -> bool:
        """Return whether results note the very files that its folder has."""
        return not self.checkpoint.on_hub and known_files(self.stamp(), stored.checkpoints) is not None


def find_jobs(config: SweepConfig) -> list[Job]:
    """Return the selected checkpoints of a configuration, model by model, in the order of training.

    Raises `LmsatError` for a model or a revision that is not there, and for two models of one name.
    """
    return jobs_of(config, [find_entry(entry) for entry in config.models])


def jobs_of(config: SweepConfig, series: Sequence[Series]) -> list[Job]:
    """Return the selected ones of the checkpoints of each model of a configuration. Raises as `find_jobs`."""
    jobs: dict[tuple[str, str], Job] = {}
    for entry, found in zip(config.models, series, strict=True):
        args, recipe = model_args(config, entry), recipe_of(config, entry)
        for checkpoint in select(found.checkpoints, asks_for_commits(entry.selections)[1]):
            key, job = (checkpoint.model, checkpoint.name), Job(checkpoint, args, recipe)
            if jobs.setdefault(key, job) != job:
                raise LmsatError(
                    f"two models of the sweep are called '{key[0]}' and have a checkpoint '{key[1]}': "
                    "give one of them another `name`"
                )
    return list(jobs.values())


def find_entry(entry: ModelEntry) -> Series:
    """Return the checkpoints of one model of a configuration. Raises as `find_jobs`."""
    return find_series(
        entry.pretrained,
        name=entry.name,
        tokens_per_step=entry.tokens_per_step,
        step_pattern=entry.step_pattern,
        stated=entry.stated,
        commits=asks_for_commits(entry.selections)[0],
        wait=True,
    )


def model_args(config: SweepConfig, entry: ModelEntry) -> dict[str, Any]:
    """Return the arguments of ``--model lmsat`` for one model. Raises `LmsatError` for one that is a sweep's key."""
    args = {**config.model_args, **entry.model_args}
    if misplaced := _OF_THE_SWEEP & args.keys():
        raise LmsatError(
            f"model_args: '{min(misplaced)}' is the sweep's business: remove it, or set it as a key of its own"
        )
    if entry.tokenizer is not None:
        args["tokenizer"] = entry.tokenizer
    if entry.merge:
        args["merge"] = True
    return args


def recipe_of(config: SweepConfig, entry: ModelEntry) -> Recipe | None:
    """Return how the checkpoints of one model are converted. Raises `LmsatError` for a way that cannot be gone."""
    if entry.config is None and entry.convert is None:
        given = [name for name in ("rename", "convert_timeout") if name in entry.model_fields_set]
        if given:
            needed = {"rename": "config", "convert_timeout": "convert"}[given[0]]
            raise LmsatError(f"{given[0]} of {entry.pretrained}: nothing is converted without '{needed}': add it")
        return None
    return Recipe(
        config=entry.config,
        rename=tuple(entry.rename),
        command=entry.convert,
        timeout=entry.convert_timeout,
        trust_remote_code=bool(model_args(config, entry).get("trust_remote_code")),
    )


def choose_jobs(jobs: Sequence[Job], options: Options) -> list[Job]:
    """Return the jobs that the options leave: one checkpoint, or every n-th. Raises `LmsatError` for an unknown one."""
    if options.only is None:
        first, count = options.shard or (1, 1)
        return list(jobs[first - 1 :: count])
    chosen = [job for job in jobs if f"{job.checkpoint.model}@{job.checkpoint.name}" == options.only]
    if not chosen:
        raise LmsatError(f"the sweep has no checkpoint {options.only}: see `lmsat sweep --dry-run`")
    return chosen
