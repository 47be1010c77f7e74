"""What a sweep is told: the keys of its YAML file, their types and defaults; the options of ``lmsat sweep``."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Discriminator, Field, PositiveFloat, PositiveInt, Tag

from lmsat_plugin.files import kind_of, user_path
from lmsat_plugin.results.checkpoint_names import parse_count
from lmsat_plugin.series.averages import longest_average
from lmsat_plugin.settings import Settings, SettingsT
from lmsat_plugin.text.corpora import CorpusSettings, PrefixPolicy
from lmsat_plugin.yaml_files import read_config


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _key(name: str) -> BeforeValidator:
    """Let a string stand for a mapping with that one key."""
    return BeforeValidator(lambda value: {name: value} if isinstance(value, str) else value)


def _as_count(value: Any) -> Any:
    """Let 2e9 and 2B be numbers: YAML takes them for text."""
    count = parse_count(value) if isinstance(value, str) else None
    return value if count is None else count


_Count = Annotated[int, Field(ge=0), BeforeValidator(_as_count)]


class StatedCheckpoint(Settings):
    """A checkpoint by its name, and its place in training where names do not state it."""

    name: str
    step: _Count | None = None
    tokens: _Count | None = None
    words: _Count | None = None
    stage: str | None = None
    run: str | None = None


_Selection = Annotated[
    Annotated[str | int, Tag("selection")] | Annotated[StatedCheckpoint, Tag("stated")],
    Discriminator(lambda item: "stated" if isinstance(item, dict | StatedCheckpoint) else "selection"),
]


class ModelEntry(Settings):
    """A series of checkpoints: a repository of the Hub, a folder of checkpoints, or several, or a single checkpoint."""

    pretrained: str | Annotated[list[str], Field(min_length=1)]
    """A name, which braces and globs may make several: ``org/model-seed{1..9}``, ``runs/seed*``; or a list of names."""
    name: str | None = None
    """Its name in the results; by default the repository's or the folder's."""
    revisions: Annotated[list[_Selection], Field(min_length=1), BeforeValidator(_listed)] = ["all"]
    """``all``, ``last``, ``log:20``, ``every:10``, ``1000..5000`` (steps), names, globs; a list is their union.

    ``{name: kestrel, step: 1000}`` states the place in training of a checkpoint, and selects it.
    """
    tokenizer: str | None = None
    tokens_per_step: PositiveInt | None = None
    """Training tokens per optimiser step, where the checkpoints' names or ``trainer_state.json`` do not state it."""
    step_pattern: str | None = None
    """A regular expression with the groups ``step`` and ``tokens``, for checkpoints of other names."""
    merge: bool = False
    """Merge adapters of PEFT into the weights before they are measured."""
    model_args: dict[str, Any] = {}
    """Arguments of ``--model lmsat`` for this model; they take precedence over the sweep's."""
    config: str | None = None
    """For checkpoints in a training format: a folder or a repository with the model's config.json and its tokenizer."""
    rename: list[tuple[str, str]] = []
    """Pairs of a regular expression and a replacement that make the names of tensors those of the architecture."""
    convert: str | None = None
    """A command that converts a checkpoint, such as ``python convert.py {input} {output}``."""
    convert_timeout: PositiveFloat = 3600.0
    """The seconds that it may take for one checkpoint."""

    @property
    def selections(self) -> list[str | int]:
        """Which checkpoints ``revisions`` selects."""
        return [item.name if isinstance(item, StatedCheckpoint) else item for item in self.revisions]

    @property
    def stated(self) -> dict[str, dict[str, Any]]:
        """The places in training that ``revisions`` states, by the names of checkpoints."""
        items = [item for item in self.revisions if isinstance(item, StatedCheckpoint)]
        return {item.name: item.model_dump(exclude_none=True, exclude={"name"}) for item in items}


class CorpusEntry(Settings):
    """A corpus; settings that it does not have are the sweep's."""

    corpus: str
    max_tokens: PositiveInt | None = None
    seed: int | None = None
    text_field: str | None = None
    prefix: PrefixPolicy | None = None


class TaskEntry(Settings):
    """A task, with a number of few-shot examples of its own."""

    task: str
    num_fewshot: Annotated[int, Field(ge=0)] | None = None


class SlurmSettings(Settings):
    """How to submit to Slurm: see ``sbatch``. ``additional`` takes any other of its options."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: PositiveInt = 240
    """Minutes a job may take."""
    cpus_per_task: PositiveInt = 4
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    mem_gb: PositiveFloat | None = None
    array_parallelism: PositiveInt = 64
    """How many jobs run at once."""
    launcher: Literal["python", "accelerate"] = "python"
    """``accelerate``: a job starts a process on each of its GPUs, which share one checkpoint's data."""
    setup: list[str] = []
    """Shell lines to run before, such as ``module load``."""
    additional: dict[str, Any] = {}


class SweepConfig(Settings):
    """A sweep: checkpoints × tasks × corpora, and where the results go."""

    models: Annotated[list[Annotated[ModelEntry, _key("pretrained")]], Field(min_length=1), BeforeValidator(_listed)]
    tasks: Annotated[list[Annotated[TaskEntry, _key("task")]], Field(min_length=1), BeforeValidator(_listed)]
    output: Path
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    corpora: Annotated[list[Annotated[CorpusEntry, _key("corpus")]], Field(min_length=1), BeforeValidator(_listed)] = [
        CorpusEntry(corpus="sample")
    ]
    max_tokens: PositiveInt | None = CorpusSettings.model_fields["max_tokens"].default
    seed: int = 0
    """Which documents of a corpus come first."""
    text_field: str | None = None
    prefix: PrefixPolicy = "auto"
    """Where the prefix token stands: before every ``window``, or before each ``document`` alone; ``auto`` is ``window``
    where the tokenizer prepends BOS."""
    metadata: dict[str, Any] = {}
    """Settings of probes and tasks, as ``lm_eval --metadata`` takes them."""
    model_args: dict[str, Any] = {}
    """Arguments of ``--model lmsat`` for all models, such as ``dtype: bfloat16``."""
    batch_size: PositiveInt | Annotated[str, Field(pattern=r"^auto(:\d+)?$")] = "auto"
    max_batch_size: PositiveInt | None = None
    device: str | None = None
    keep: Annotated[int, Field(ge=0)] | Literal["all"] = 1
    """How many downloaded checkpoints stay on disk once they are measured."""
    include_path: Annotated[list[str], BeforeValidator(_listed)] = []
    """Folders of task files of your own."""
    probes: Annotated[list[str], BeforeValidator(_listed)] = []
    """Python files with probes of your own; their tasks are measured beside `tasks`."""
    limit: PositiveInt | Annotated[float, Field(gt=0, lt=1)] | None = None
    log_samples: bool = False
    bootstrap_iters: Annotated[int, Field(ge=0)] = 1000
    apply_chat_template: bool | str = False
    fewshot_as_multiturn: bool = False
    system_instruction: str | None = None
    gen_kwargs: dict[str, Any] | None = None
    executor: Literal["local", "processes", "slurm"] = "local"
    workers: PositiveInt | None = None
    slurm: SlurmSettings = SlurmSettings()
    trackers: dict[str, dict[str, Any]] = {}
    """Where else to log results: trackio, wandb, tensorboard, each with its settings."""

    @property
    def kept(self) -> int | None:
        """How many checkpoints stay on disk that are downloaded, and how many that are converted; None for all.

        Averages that slide over a series need the last few again.
        """
        longest = max(longest_average(entry.selections) for entry in self.models)
        return None if self.keep == "all" else max(self.keep, longest if longest > 1 else 0)

    def corpus_settings(self) -> list[CorpusSettings]:
        """Return the settings of each corpus; those that it does not have are the sweep's."""
        shared = {key: getattr(self, key) for key in ("max_tokens", "seed", "text_field", "prefix")}
        return [CorpusSettings(**{**shared, **entry.model_dump(exclude_unset=True)}) for entry in self.corpora]


_ENTRIES: dict[str, type[Settings]] = {
    "models": ModelEntry,
    "revisions": StatedCheckpoint,
    "corpora": CorpusEntry,
    "tasks": TaskEntry,
    "slurm": SlurmSettings,
}
_PATHS = ("head", "tokenizer", "peft", "delta")
"""Arguments of the model that may be paths."""
ALIASES = {"corpus": "corpora"}
"""Other names of keys."""


def load_config(path: Path, overrides: dict[str, Any] | None = None) -> SweepConfig:
    """Read a sweep's YAML file. ``overrides`` take precedence over its keys. Raises as `read_config`.

    A relative path in it is one from the working directory, or, where nothing is there, from the file's own folder.
    """
    given = overrides or {}
    others = {"lmsat ngram --config": {"tokenizers"}}
    config = read_config(path, SweepConfig, given, aliases=ALIASES, entries=_ENTRIES, others=others)
    return _from_folder(config, path.parent, given)


def _from_folder(config: SweepConfig, folder: Path, overrides: Mapping[str, Any]) -> SweepConfig:
    """Return a configuration whose paths that are not there from here are those from a folder, if they are there."""

    def found(name: Any) -> Any:
        if isinstance(name, list):
            return [found(each) for each in name]
        if not isinstance(name, str) or not name or kind_of(user_path(name)) is not None:
            return name
        return str(folder / name) if kind_of(folder / name) is not None else name

    def changed(settings: SettingsT, keys: Sequence[str]) -> SettingsT:
        """Return settings with what is found there in the place of some values; what was not given stays so."""
        old = {key: getattr(settings, key) for key in keys if key not in overrides}
        new = {key: _of_arguments(value) if isinstance(value, dict) else found(value) for key, value in old.items()}
        new = {key: value for key, value in new.items() if value != old[key]}
        return settings.model_copy(update=new) if new else settings

    def _of_arguments(args: dict[str, Any]) -> dict[str, Any]:
        return {key: found(value) if key in _PATHS else value for key, value in args.items()}

    models = [changed(entry, ("pretrained", "tokenizer", "config", "model_args")) for entry in config.models]
    # A name without a dot or a slash is that of a corpus, whatever lies there.
    corpora = [changed(entry, ("corpus",)) if {*"./"} & {*entry.corpus} else entry for entry in config.corpora]
    lists = {"models": models, "corpora": corpora}
    lists = {key: value for key, value in lists.items() if value != getattr(config, key) and key not in overrides}
    config = changed(config, ("include_path", "model_args"))
    return config.model_copy(update=lists) if lists else config


def config_to_yaml(config: SweepConfig) -> str:
    """Return a configuration as the text of a YAML file, short where a key allows it; `load_config` gives it back."""
    values = config.model_dump(exclude_unset=True)
    for key, name in (("models", "pretrained"), ("tasks", "task"), ("corpora", "corpus")):
        if key in values:
            values[key] = [
                entry[name] if entry.keys() == {name} and isinstance(entry[name], str) else entry
                for entry in values[key]
            ]
    for entry in values["models"]:
        if isinstance(entry, dict) and len(entry.get("revisions", ())) == 1:
            [entry["revisions"]] = entry["revisions"]
    if len(values.get("corpora", ())) == 1:
        values = {{"corpora": "corpus"}.get(key, key): value for key, value in values.items()}
        [values["corpus"]] = values["corpus"]
    values["output"] = str(values["output"])
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of ``lmsat sweep``: which checkpoints, what is measured again. No result depends on them."""

    shard: tuple[int, int] | None = None
    """Part i of n, counted from 1."""
    only: str | None = None
    """The one checkpoint to measure, as MODEL@REVISION. Both may hold an @: averages of checkpoints do."""
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What tells this run from others; the workers of one run share it."""
    force: bool = False
    """Measure again what was measured before this run."""
    retry_failed: bool = False
    """Try again what failed before this run."""
    wait: bool = True
    """Wait for the checkpoints that other processes are measuring, and take over those that they leave."""
    watch: float | None = None
    """Seconds between two looks for new checkpoints; None ends the sweep when all are measured."""
    prefix: str = ""
    """What each line of output begins with: it names the worker where there are several."""
