"""GPT-NeoX's evaluations: lm-eval's files whose ``model_args`` are the whole configuration of the training.

The layout is that of EleutherAI's ``evals/pythia-v0``, with files such as ``pythia-70m/five-shot/
pythia-70m-5shot-global_step63000_eval_results_11-25-2022-07-29-28.json``: about 190 settings, of which ``iteration``
is the step, and the names of the model in them are those that it had on the trainers' disks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lmsat_plugin.results.json_values import as_dict, as_integer, as_text
from lmsat_plugin.results.other_tools.documents import Document, date_in_name

PREFIX = "neox."
"""Of settings that belong to the training: they tell results apart only if they are of the same checkpoint."""
_STEP = re.compile(r"[-_]*(?:global_?)?step_?(\d+)", re.IGNORECASE)
_SHOTS = re.compile(r"(?:^|[-_])(?:\d+|zero|one|few|five|ten)[-_]?shots?(?=$|[-_])", re.IGNORECASE)
_VERSION = re.compile(r"(?P<base>.+)[-_](?P<version>v\d+(?:\.\d+)*)", re.IGNORECASE)
_NO_MODELS = re.compile(r"|evals?|results?|checkpoints?|ckpts?|output|baseline|intervention", re.IGNORECASE)
# What a run keeps for its own books: where things lie, what is logged, on which machines it runs.
_BOOKKEEPING = re.compile(
    r"wandb_.*|use_wandb|.*_prefix|.*_?(?:dir|paths?|files?|weights|hash|date|time|name|host|hostfile|interval|iters?)"
    r"|(?:iteration|user_script|eval_tasks|save|load|launcher|include|exclude|slurm_comment|comment)|do_.*|log_.*"
    r"|(?:local_)?rank|world_size|.*num_gpus|num_nodes|num_workers|master_.*|deepspeed_.*|lazy_mpu_init|.*batch_size.*"
    r"|gas|gradient_accumulation_steps|checkpoint_.*|zero_.*|tensorboard.*|steps_per_print|wall_clock_breakdown"
)
_LEVELS_ABOVE = 4


def is_neox(content: dict[str, Any]) -> bool:
    """Return whether a result file is of GPT-NeoX."""
    config = as_dict(content.get("config"))
    return config.get("model") == "neox" and isinstance(config.get("model_args"), dict)


def read_neox(content: dict[str, Any], path: Path) -> Document:
    """Return a file of GPT-NeoX with the model and the step that its name, its folders or its settings state."""
    config = as_dict(content.get("config"))
    settings = as_dict(config.get("model_args"))
    model = _of_names(path) or _of_settings(settings) or "unknown"
    steps = [_STEP.search(name) for name in (path.stem, path.absolute().parent.name)]
    step = next((int(match[1]) for match in steps if match), as_integer(settings.get("iteration")))
    args = {
        "pretrained": model,
        "revision": "main" if step is None else f"step{step}",
        "dtype": as_text(settings.get("precision")),
        "seq_length": settings.get("seq_length"),
        **{f"{PREFIX}{key}": value for key, value in settings.items() if _may_matter(key, value)},
    }
    date = content.get("date", date_in_name(path.name))
    return Document({**content, "config": {**config, "model_args": args}, **({} if date is None else {"date": date})})


def _may_matter(key: str, value: Any) -> bool:
    """Return whether a setting may change what was measured: a plain value that is no bookkeeping and no path."""
    if key in ("precision", "seq_length") or not isinstance(value, str | int | float) or value is False:
        return False
    return not _BOOKKEEPING.fullmatch(key) and not (isinstance(value, str) and ("/" in value or len(value) > 100))


def _of_names(path: Path) -> str | None:
    """Return the model that the file's name states, or the nearest folder's; with the version of a folder above."""
    folders = [folder.name for folder in path.absolute().parents if folder.name]
    stem = re.sub(r"_*eval_results.*", "", path.stem)
    for level, name in enumerate([stem, *folders[:_LEVELS_ABOVE]]):
        model = _SHOTS.sub("", _STEP.sub("", name)).strip("-_. ")
        if not _NO_MODELS.fullmatch(model):
            return _with_version(model, folders[level : level + _LEVELS_ABOVE])
    return None


def _with_version(model: str, folders: list[str]) -> str:
    """Return a model's name with the version that a folder around it states: pythia-70m in pythia-v0 is -v0."""
    for folder in folders:
        match = _VERSION.fullmatch(folder)
        if match and model.lower().startswith(match["base"].lower()) and match["version"] not in model:
            return f"{model}-{match['version']}"
    return model


def _of_settings(settings: dict[str, Any]) -> str | None:
    """Return the name that the settings give the model's folder."""
    prefix = (as_text(settings.get("eval_results_prefix")) or "").rpartition("/")[2]
    names = [_SHOTS.sub("", _STEP.sub("", prefix)).strip("-_. ")]
    names += [(as_text(settings.get(key)) or "").rstrip("/").rpartition("/")[2] for key in ("load", "save")]
    return next(filter(None, names), None)
