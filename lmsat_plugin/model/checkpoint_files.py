"""What can be said of a checkpoint before, and of its loading, in one sentence."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors import SafetensorError, safe_open

from lmsat_plugin.errors import LmsatError, first_sentence

CONFIG_FILES = ("config.json", "generation_config.json", "adapter_config.json")
TOKENIZER_FILES = (
    *("tokenizer*", "vocab*", "merges.txt", "*.model", "*.tiktoken", "chat_template*"),
    *("special_tokens_map.json", "added_tokens.json"),
)
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
"""Patterns of the files that a checkpoint consists of."""


def local_folder(pretrained: str) -> Path | None:
    """Return the folder that ``pretrained`` names, or None for what could be a name of the Hub.

    Raises `LmsatError` for a path where there is no folder.
    """
    path = Path(pretrained)
    try:
        path = path.expanduser()
        exists = path.exists()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or first_sentence(error)
        raise LmsatError(f"pretrained={pretrained} cannot be read ({reason}); correct the path") from None
    if not exists:
        looks_local = path.is_absolute() or pretrained.startswith((".", "~")) or pretrained.count("/") > 1
        if looks_local or (os.sep != "/" and os.sep in pretrained):
            raise LmsatError(f"pretrained={pretrained}: there is no such folder; correct the path")
        return None
    if not path.is_dir():
        raise LmsatError(f"pretrained={pretrained} is a file: give the folder that holds it")
    return path


def check_checkpoint_folder(pretrained: str, subfolder: str = "", gguf_file: str | None = None) -> None:
    """Raise `LmsatError` for a missing folder, or one without a configuration, or with missing or cut weights.

    A name that is not a folder here and could be one of the Hub is left to the Hub.
    """
    path = local_folder(pretrained)
    if path is None:
        return
    path = path / subfolder
    if gguf_file is not None:
        if not (path / gguf_file).is_file():
            raise LmsatError(f"pretrained={path} has no file {gguf_file}: correct gguf_file")
        return
    if (path / "adapter_config.json").is_file():
        return
    if not (path / "config.json").is_file():
        raise LmsatError(f"pretrained={path} has no config.json: give the folder of a saved checkpoint")
    if not any(file for pattern in WEIGHT_FILES for file in path.glob(pattern)):
        raise LmsatError(
            f"pretrained={path} has no weights ({' or '.join(WEIGHT_FILES)}): give a whole checkpoint"
        )
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise LmsatError(
                f"{file} is cut short or no safetensors file ({first_sentence(error)}): copy or download it again"
            ) from error


def load_whole(loader: Any) -> Any:
    """Return a stand-in for an Auto class whose ``from_pretrained`` refuses missing or misshapen weights.

    transformers fills what a checkpoint lacks with random numbers and a warning: a measurement of these is
    worse than none. Raises `LmsatError` naming the first such weight.
    """

    def from_pretrained(pretrained: str, **kwargs: Any) -> Any:
        model, info = loader.from_pretrained(
            pretrained, output_loading_info=True, **{"ignore_mismatched_sizes": True, **kwargs}
        )
        if info["mismatched_keys"] and not kwargs.get("ignore_mismatched_sizes"):
            name, theirs, ours = sorted(info["mismatched_keys"])[0]
            raise LmsatError(
                f"{pretrained} has {name} of shape {tuple(theirs)} where its config.json says {tuple(ours)}: "
                "the checkpoint is of another architecture or vocabulary; give one that is whole"
            )
        if missing := sorted(info["missing_keys"]):
            raise LmsatError(
                f"{pretrained} lacks {len(missing)} of the model's weights, {missing[0]} among them: "
                "the checkpoint is incomplete or of another architecture; copy or download it again"
            )
        return model

    return SimpleNamespace(from_pretrained=from_pretrained)
