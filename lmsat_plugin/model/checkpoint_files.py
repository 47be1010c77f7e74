"""The files that make a checkpoint, and whether a folder has them whole."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import check_file

CONFIG_FILES = ("config.json", "generation_config.json", "adapter_config.json")
TOKENIZER_FILES = (
    *("tokenizer*", "vocab*", "merges.txt", "*.model", "*.tiktoken", "chat_template*"),
    *("special_tokens_map.json", "added_tokens.json"),
)
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
"""Patterns of the files of weights; those above are the configurations' and the tokenizers'."""


def tokenizer_digest(folder: Path) -> str:
    """Return a hash of the names and contents of a folder's tokenizer files."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)}):
        # transformers passes over anything else.
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def local_folder(pretrained: str) -> Path | None:
    """Return the folder that ``pretrained`` names, or None if it may be a name on the Hub.

    Raises `LmsatError` for a path without a folder.
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
    """Raise `LmsatError` for a missing folder, a folder without a configuration, and missing or cut weights.

    A name that is not a local folder and may be one on the Hub passes.
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
        raise LmsatError(f"pretrained={path} has no weights ({' or '.join(WEIGHT_FILES)}): give a whole checkpoint")
    for file in sorted(path.glob("*.safetensors")):
        try:
            check_file(file)
            with safe_open(file, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise LmsatError(
                f"{file} is cut short or not a safetensors file ({first_sentence(error)}): copy or download it again"
            ) from error
