"""What a sweep's YAML file says, checked, with the line named where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, ValidationError

from lmsat_plugin.corpora import CorpusSettings
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.settings import Settings, closest


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _key(name: str) -> BeforeValidator:
    """Let a string stand for a mapping with that one key."""
    return BeforeValidator(lambda value: {name: value} if isinstance(value, str) else value)


class ModelEntry(Settings):
    """A series of checkpoints: a repository of the Hub, a folder of checkpoints, or a single checkpoint."""

    pretrained: str
    name: str | None = None
    """What to call it in the results; by default the repository's or the folder's name."""
    revisions: Annotated[list[str | int], BeforeValidator(_listed)] = ["all"]
    """``all``, ``last``, ``log:20``, ``every:10``, ``1000..5000`` (steps), names, globs; a list is their union."""
    tokenizer: str | None = None
    tokens_per_step: PositiveInt | None = None
    """Training tokens per optimiser step, where the checkpoints' names or ``trainer_state.json`` do not say."""
    step_pattern: str | None = None
    """A regular expression with the groups ``step`` and ``tokens``, for checkpoints of other names."""
    model_args: dict[str, Any] = {}
    """Arguments of ``--model lmsat``, for this model; they take precedence over the sweep's."""


class CorpusEntry(Settings):
    """A corpus; what it does not say is taken from the sweep."""

    corpus: str
    max_tokens: PositiveInt | None = None
    seed: int | None = None
    text_field: str | None = None


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

    models: Annotated[list[Annotated[ModelEntry, _key("pretrained")]], Field(min_length=1)]
    tasks: Annotated[list[Annotated[TaskEntry, _key("task")]], Field(min_length=1), BeforeValidator(_listed)]
    output: Path
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    corpora: Annotated[
        list[Annotated[CorpusEntry, _key("corpus")]], Field(min_length=1), BeforeValidator(_listed)
    ] = [CorpusEntry(corpus="sample")]
    max_tokens: PositiveInt | None = CorpusSettings.model_fields["max_tokens"].default
    seed: int = 0
    """Which documents of a corpus come first."""
    text_field: str | None = None
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
    """Where to log results besides: trackio, wandb, tensorboard, each with its settings."""

    def corpus_settings(self) -> list[CorpusSettings]:
        """Return each corpus' settings, with the sweep's where it has none of its own."""
        shared = {"max_tokens": self.max_tokens, "seed": self.seed, "text_field": self.text_field}
        return [
            CorpusSettings(**{**shared, **entry.model_dump(exclude_unset=True)}) for entry in self.corpora
        ]


_HERE = Path(__file__).resolve().parent.parent
SHIPPED = _HERE / "configs" if (_HERE / "configs").is_dir() else _HERE.parent / "configs"
"""The folder of the configurations that come with lmsat."""

_ENTRIES: dict[str, type[Settings]] = {
    "models": ModelEntry,
    "corpora": CorpusEntry,
    "tasks": TaskEntry,
    "slurm": SlurmSettings,
}


def load_config(path: Path, overrides: dict[str, Any] | None = None) -> SweepConfig:
    """Read a sweep's YAML file. ``overrides`` take precedence over its keys.

    A path ``configs/NAME.yaml`` that is not here stands for the one that comes with lmsat.

    Raises:
        LmsatError: For a file that cannot be read or is no YAML; for an unknown key or a wrong value, with its line.
    """
    if not path.exists() and path.parts[:-1] == ("configs",) and (SHIPPED / path.name).is_file():
        path = SHIPPED / path.name
    try:
        text = path.read_text("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise LmsatError(f"the configuration {path} cannot be read ({reason}): correct its name") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise LmsatError(f"{path}{line}: no valid YAML ({problem}): correct it") from None
    if not isinstance(values, dict):
        raise LmsatError(f"{path} is not a list of `key: value` lines: see the ones in configs/")
    if "corpus" in values:
        if "corpora" in values:
            raise LmsatError(
                f"{path}, line {_line(node, ['corpora'])}: give `corpus` or `corpora`, not both: remove one"
            )
        values["corpora"] = values.pop("corpus")
    try:
        return SweepConfig(**{**values, **(overrides or {})})
    except ValidationError as error:
        raise _named(error, path, node, overrides or {}) from None


def _named(error: ValidationError, path: Path, node: Any, overrides: dict[str, Any]) -> LmsatError:
    """Return the first thing that is wrong as a sentence with its line, or that it is an override."""
    first = error.errors()[0]
    # Where a value may be of several types, the location goes on with the type's name.
    location = [part for part in first["loc"] if isinstance(part, int) or part.isidentifier()]
    while location and location[-1] in ("int", "str", "float", "bool", "constrained"):
        location.pop()
    overridden = bool(location) and location[0] in overrides
    where = "on the command line" if overridden else f"{path}, line {_line(node, location)}"
    key = next((str(part) for part in reversed(location) if isinstance(part, str)), "")
    if first["type"] == "extra_forbidden":
        kind = _ENTRIES.get(str(location[0]), SweepConfig) if len(location) > 1 else SweepConfig
        known = {*kind.model_fields, *({"corpus"} if kind is SweepConfig else ())}
        meant = closest(key, known)
        hint = f"did you mean '{meant}'?" if meant else f"known are {', '.join(sorted(known))}"
        return LmsatError(f"{where}: unknown key '{key}': {hint}")
    if first["type"] == "missing":
        return LmsatError(f"{where}: the key '{key}' is missing: add it")
    reasons = dict.fromkeys(e["msg"] for e in error.errors() if e["loc"][: len(location)] == tuple(location))
    return LmsatError(f"{where}: {key}: {first['input']} is not right ({'; '.join(reasons)}): correct it")


def _line(node: Any, location: list[Any]) -> int:
    """Return the line of a key in the YAML tree, or of the nearest thing around it."""
    line = node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            keys = {key.value: (key, value) for key, value in node.value}
            if part == "corpora" and part not in keys:
                part = "corpus"
            if part not in keys:
                break
            key, node = keys[part]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
