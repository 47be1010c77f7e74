"""The configuration that the arguments of ``lmsat sweep`` amount to: a file or names, options, and KEY=VALUE."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import kind_of, read_file, user_path, write_atomically
from lmsat_plugin.outside_text import shortened
from lmsat_plugin.settings import closest, parse_settings
from lmsat_plugin.sweeps.config import ALIASES, ModelEntry, SweepConfig, config_to_yaml, load_config
from lmsat_plugin.yaml_files import parse_yaml

_CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".ckpt")
KEYS = {*SweepConfig.model_fields, *ALIASES}
"""What KEY=VALUE may name, besides single settings of probes and tasks as ``metadata.SETTING``."""
_METADATA = "metadata."
_OF_MODELS = ("revisions", "name", "step_pattern", "tokens_per_step")
"""The options that are keys of each model."""


def read_arguments(args: argparse.Namespace) -> tuple[SweepConfig, bool]:
    """Return the configuration of a sweep, and whether it was made of names.

    Raises `LmsatError` for words that go together with no others, and for what the configuration does not allow.
    """
    tasks, after_tasks = _without_overrides(args.tasks)
    revisions, after_revisions = _without_overrides(args.revisions)
    files, names, given = _sort([*args.words, *after_tasks, *after_revisions])
    settings = {key.removeprefix(_METADATA): value for key, value in given.items() if key.startswith(_METADATA)}
    overrides = {key: value for key, value in given.items() if not key.startswith(_METADATA)}
    options: dict[str, Any] = {
        "tasks": _split(tasks),
        "corpora": args.corpus,
        "probes": args.probe,
        "output": args.output,
        "executor": args.executor,
        "workers": args.workers,
    }
    options = {key: value for key, value in options.items() if value is not None}
    if twice := sorted(overrides.keys() & options.keys() - {"executor", "workers"}):
        key = {name: alias for alias, name in ALIASES.items()}.get(twice[0], twice[0])
        raise LmsatError(f"--{key} and {key}= are both given: leave one of them out")
    of_models = {key: value for key in _OF_MODELS if (value := getattr(args, key)) is not None}
    if revisions is not None:
        of_models["revisions"] = revisions
    if files:
        if names or len(files) > 1:
            other = [*names, *files[1:]][0]
            raise LmsatError(
                f"{files[0]} is a configuration, which has models of its own: give it or {other}, not both"
            )
        config = load_config(user_path(files[0]), {**overrides, **options})
        return _with_settings(_with_model_keys(config, of_models), settings), False
    if not names:
        raise LmsatError(_nothing_named([*(tasks or []), *(revisions or [])]))
    if "models" in overrides:
        raise LmsatError(f"models= replaces the models of a configuration: leave it or {names[0]} out")
    from lmsat_plugin.sweeps.from_names import config_values

    values = config_values(names, name=args.name, watch=args.watch is not None)
    config = parse_settings(SweepConfig, {**values, **overrides, **options})
    return _with_settings(_with_model_keys(config, of_models), settings), True


def _sort(words: Iterable[str]) -> tuple[list[str], list[str], dict[str, Any]]:
    """Return the words that are configurations, those that are names of models, and the settings among them."""
    files, names, settings = [], [], {}
    for word in words:
        kind, (key, equals, value) = kind_of(user_path(word)), word.partition("=")
        is_file = kind in ("file", "device") and not word.lower().endswith(_WEIGHT_SUFFIXES)
        if not word.strip():
            raise LmsatError("an empty word is no name of a model: leave it out, or see whether a variable is unset")
        if kind is None and equals and (_is_key(key) or closest(key, KEYS)):
            settings[ALIASES.get(key, key)] = _value(key, value)
        elif is_file or (kind is None and word.lower().endswith(_CONFIG_SUFFIXES)):
            files.append(word)
        elif kind is None and equals and key.isidentifier():
            raise LmsatError(
                f"{shortened(word)} is no folder here, and '{key}' is no key of a configuration: correct it"
            )
        else:
            names.append(word)
    return files, names, settings


def _is_key(key: str) -> bool:
    return key in KEYS or key.startswith(_METADATA)


def _value(key: str, text: str) -> Any:
    if not text and key.startswith(_METADATA):
        return text  # as lm_eval's --metadata KEY= does
    try:
        return parse_yaml(text, f"{key}=")[1]
    except LmsatError:
        # A file's name may hold characters with a meaning in YAML.
        return text


def _without_overrides(words: list[str] | None) -> tuple[list[str] | None, list[str]]:
    """Return the words of an option, and those settings among them that argparse took for its own."""
    overrides = [word for word in (words or [])[1:] if _is_key(word.partition("=")[0]) and "=" in word]
    return words and [word for word in words if word not in overrides], overrides


def _split(tasks: list[str] | None) -> list[str] | None:
    """Return names of tasks of which one word may hold several, with commas; not where that is a file's name."""
    if tasks is None:
        return None
    named = [
        name.strip() for word in tasks for name in ([word] if kind_of(Path(word)) is not None else word.split(","))
    ]
    if not (named := [name for name in named if name]):
        raise LmsatError("--tasks names no task: give some, as in --tasks lmsat_loss,lmsat_head")
    return named


def _nothing_named(taken: list[str]) -> str:
    advice = "name a folder, a repository of the Hub or a configuration, as in `lmsat sweep EleutherAI/pythia-160m`"
    if not taken:
        return f"nothing to sweep: {advice}"
    return f"nothing to sweep, since --tasks and --revisions take all words after them, up to {taken[-1]}: {advice}"


def _with_settings(config: SweepConfig, settings: dict[str, Any]) -> SweepConfig:
    """Return the configuration with some settings of probes and tasks replaced."""
    return config.model_copy(update={"metadata": {**config.metadata, **settings}}) if settings else config


def _with_model_keys(config: SweepConfig, keys: dict[str, Any]) -> SweepConfig:
    """Return the configuration with some keys of all its models replaced."""
    if not keys:
        return config
    entries = [parse_settings(ModelEntry, {**entry.model_dump(exclude_unset=True), **keys}) for entry in config.models]
    return config.model_copy(update={"models": entries})


def save_config(config: SweepConfig, path: Path) -> None:
    """Write a configuration to a file, unless it is there already.

    Raises `LmsatError` for a file that holds something else.
    """
    path = user_path(path)
    if kind_of(path) is not None:
        with suppress(OSError, UnicodeDecodeError, LmsatError):
            read_file(path)
            if load_config(path) == config:
                return
        raise LmsatError(f"--save {path} is there and is not this configuration: remove it, or give another name")
    write_atomically(path, config_to_yaml(config).encode())
