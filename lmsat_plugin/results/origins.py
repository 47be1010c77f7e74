"""The model's name and the checkpoint that a result file is about, and the settings it was measured with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmsat_plugin.results.checkpoint_names import (
    TrainingProgress,
    is_bare,
    parameters_in_name,
    parse_progress,
    parse_series,
)
from lmsat_plugin.results.json_values import as_dict, as_integer, as_number, as_text, clean, first
from lmsat_plugin.results.other_tools.documents import date_in_name
from lmsat_plugin.results.training_order import Totals

# Model arguments that do not change what was measured, or that have a column of the table.
_NO_SETTINGS = {
    *("pretrained", "model", "revision", "tokenizer", "dtype", "arrays", "trust_remote_code", "token"),
    *("use_auth_token", "cache_dir", "device", "device_map", "device_map_option", "offload_folder"),
    *("parallelize", "use_accelerate", "gpus", "max_memory_per_gpu", "max_cpu_memory", "batch_size"),
    *("max_batch_size", "low_cpu_mem_usage", "use_fast_tokenizer", "backend", "attn_implementation"),
    *("tensor_parallel_size", "data_parallel_size", "gpu_memory_utilization", "num_processes"),
    *("logits_cache", "base_url", "num_concurrent", "max_retries", "timeout", "verify_certificate"),
    *("tokenized_requests", "eos_string"),
}
_DATED = re.compile(r"_\d{4}-\d\d-\d\dT\d\d.*")
_NO_NAMES = {"", ".", "..", "~", "checkpoints", "checkpoint", "ckpts", "ckpt", "models", "output", "outputs"}
_CHECKPOINT = re.compile(r"(global_?)?(step|checkpoint|ckpt|chkpt|iter|epoch)", re.IGNORECASE)


@dataclass(frozen=True)
class Naming:
    """How the names of checkpoints are read: the options of `parse_progress`."""

    pattern: re.Pattern[str] | None = None
    tokens_per_step: int | None = None

    def progress(self, name: str) -> TrainingProgress:
        """Return what a name states."""
        # Longer text is not a name.
        return parse_progress(name[-200:], self.pattern, self.tokens_per_step)

    def series(self, names: Iterable[str]) -> dict[str, TrainingProgress]:
        """Return what each name of one series states."""
        return parse_series(names, self.pattern, self.tokens_per_step)

    def states_one(self, name: str) -> bool:
        """Return whether a name states a step, tokens or words."""
        return self.progress(name).is_placed


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a result file is about."""

    path: str
    model: str
    revision: str
    commit: str | None
    progress: TrainingProgress
    totals: Totals
    """As a sweep noted them, which knew all checkpoints of the series."""
    is_noted: bool
    """Whether a sweep noted the checkpoint; otherwise names state it."""
    sizes: dict[str, int | None]
    """Where nothing else says how many parameters there are, ``n_params`` is what the model's name says, and
    ``n_params_from_name`` is true."""
    date: float | None
    settings: dict[str, str]
    """The model's settings that distinguish results of one checkpoint, such as ``head_rank``, as text."""
    supersedes: dict[str, set[str]]
    """The tasks of other files in the same folder that this file replaces."""


def read_origin(
    data: dict[str, Any],
    provenance: list[dict[str, Any]],
    path: Path,
    name: str,
    *,
    naming: Naming,
    checkpoint: dict[str, Any] | None = None,
) -> Origin:
    """Return the checkpoint of a result file, which its content, lmsat's notes in it and names of its path state.

    ``name`` is the path that the table shows. ``checkpoint`` is what a file of another tool states, as notes state it.
    """
    config, notes = as_dict(data.get("config")), provenance[0] if provenance else {}
    args = _model_args(config.get("model_args"))
    checkpoint = as_dict(notes.get("checkpoint")) or checkpoint or {}
    sizes = as_dict(notes.get("model")) or as_dict(config.get("sizes"))
    stated = [as_text(source.get(key)) for source, key in ((args, "revision"), (config, "model_revision"))]
    revision = next((text for text in stated if text not in (None, "main")), None)
    model, folder = as_text(args.get("pretrained")), None
    if model and revision is None:
        model, revision, folder = _split_folder(model, naming)
    fallbacks = (args.get("model"), config.get("model_name"), data.get("model_name"))
    model = _first_text(checkpoint.get("model"), model, *fallbacks) or as_text(path.absolute().parent.name)
    # lm-eval appends the date to the names of its files.
    names = (path.parts[-2] if len(path.parts) > 1 else "", _DATED.sub("", path.stem))
    with_step = [text for text in names if naming.states_one(text) and not is_bare(text)]
    revision = _first_text(checkpoint.get("revision"), revision, *with_step) or "main"
    commits = (checkpoint.get("commit"), checkpoint.get("weights_sha256"), notes.get("commit"))
    n_params = first(as_integer(sizes.get("n_params")), as_integer(config.get("model_num_parameters")))
    # lm-eval writes -1 for an unknown size.
    is_known = n_params is not None and n_params > 0
    in_name = None if is_known else parameters_in_name(model or "")
    others = ("n_params_non_embedding", "hidden_size", "vocab_size")
    dtype = _first_text(notes.get("dtype"), config.get("model_dtype"), args.get("dtype"))
    return Origin(
        path=name,
        model=model or "unknown",
        revision=revision,
        commit=_first_text(*commits, config.get("model_sha")),
        progress=_progress(checkpoint, [revision, *with_step], model or "", naming),
        totals=Totals(as_integer(checkpoint.get("total_step")), as_integer(checkpoint.get("total_tokens"))),
        is_noted=bool(checkpoint),
        sizes={
            "n_params": n_params if is_known else in_name,
            "n_params_from_name": None if not is_known and in_name is None else not is_known,
            **{key: as_integer(sizes.get(key)) for key in others},
        },
        date=as_number(data["date"]) if "date" in data else date_in_name(path.name),
        settings=read_settings(
            {
                **{key: value for key, value in args.items() if key not in _NO_SETTINGS},
                "dtype": dtype and dtype.removeprefix("torch."),
                **({"subfolder": None} if checkpoint else {"folder": folder}),
                **{key: config.get(key) for key in ("limit", "gen_kwargs")},
                **{key: data.get(key) for key in ("chat_template_sha", "system_instruction_sha")},
            }
        ),
        supersedes=_superseded(provenance),
    )


def _progress(checkpoint: dict[str, Any], names: Sequence[str], model: str, naming: Naming) -> TrainingProgress:
    """Return what a user's pattern finds in the names, else what a sweep noted, else what the names state."""
    stated = [naming.progress(name) for name in names]
    counts = {}
    # Notes with words are of a version that read all names of the series together.
    is_sure = "words" in checkpoint and naming.pattern is None
    for key in ("step", "tokens", "words"):
        noted = as_integer(checkpoint.get(key))
        by_names = None if is_sure else first(*(getattr(progress, key) for progress in stated))
        counts[key] = first(by_names, noted) if naming.pattern is not None else first(noted, by_names)
    # Names of folders above a checkpoint's say nothing of its stage.
    named = stated[0]
    texts: dict[str, str | None] = {}
    for key, other in (("stage", None), ("run", parse_progress(model[-200:]).run)):
        noted_text, is_noted = as_text(checkpoint.get(key)), key in checkpoint and naming.pattern is None
        texts[key] = noted_text if is_noted else getattr(named, key) or noted_text or other
    step, tokens = counts["step"], counts["tokens"]
    if tokens is None and step is not None and naming.tokens_per_step is not None:
        tokens = as_integer(step * naming.tokens_per_step)
    return TrainingProgress(step, tokens, words=counts["words"], **texts)


def _split_folder(pretrained: str, naming: Naming) -> tuple[str, str | None, str | None]:
    """Return model, revision and folder that a path of a checkpoint states; a name on the Hub is the model's."""
    *parents, last = re.split(r"[/\\]+", pretrained.rstrip("/\\"))
    if len(parents) == 1 and parents[0] not in _NO_NAMES:
        # The path may be a name on the Hub: a word or a number within it does not make it a checkpoint.
        whole = naming.pattern.fullmatch(last) if naming.pattern else _CHECKPOINT.match(last)
        if not whole:
            return pretrained, None, None
    if not parents or not naming.states_one(last):
        return pretrained, None, None
    name = next((part for part in reversed(parents) if part.lower() not in _NO_NAMES), parents[-1])
    return name or last, last, "/".join(parents)


def _model_args(args: Any) -> dict[str, Any]:
    """Return lm-eval's model arguments, which are a dict or text such as ``a=1,b=2``."""
    if not isinstance(args, str):
        return as_dict(args)
    pairs = (part.partition("=") for part in args.split(",") if "=" in part)
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def _superseded(provenance: list[dict[str, Any]]) -> dict[str, set[str]]:
    files: dict[str, set[str]] = {}
    for part in provenance:
        for file, tasks in as_dict(part.get("supersedes")).items():
            files.setdefault(file, set()).update(map(str, tasks if isinstance(tasks, list) else []))
    return files


def read_settings(values: dict[str, Any]) -> dict[str, str]:
    """Return settings as text, without those that are switched off or not given."""
    return {
        key: clean(str(value))
        for key, value in values.items()
        if value is not None and value is not False and value not in ("", "None", "False", "auto", {}, [])
    }


def _first_text(*values: Any) -> str | None:
    return next((text for value in values if (text := as_text(value))), None)
