"""The files that make a checkpoint, and whether a folder has them whole."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import check_file, similar_path

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


@dataclass(frozen=True)
class TrainingFormat:
    """A format that training writes and transformers does not read."""

    name: str
    files: tuple[str, ...]
    """Patterns of the files or folders by which it is known."""
    convert: str
    """What makes a checkpoint for transformers of one."""


_FORMATS = (
    TrainingFormat(
        "torch.distributed.checkpoint",
        ("*.distcp", "*/*.distcp"),
        "torch.distributed.checkpoint.format_utils.dcp_to_torch_save and the model's own converter",
    ),
    TrainingFormat("litgpt", ("lit_model.pth",), "`litgpt convert_from_litgpt`"),
    TrainingFormat("nanotron", ("model_config.json", "model/*.safetensors"), "nanotron's convert_nanotron_to_hf.py"),
    TrainingFormat(
        "DeepSpeed",
        ("mp_rank_*_model_states.pt", "*/mp_rank_*_model_states.pt", "layer_*-model_*-model_states.pt"),
        "DeepSpeed's zero_to_fp32.py and the model's own converter",
    ),
    TrainingFormat(
        "Megatron", ("mp_rank_*", "model_optim_rng.pt", "tp_rank_*"), "megatron-bridge or Megatron's own converter"
    ),
    TrainingFormat("Lightning", ("*.ckpt",), "Lightning's own `load_from_checkpoint` and `save_pretrained`"),
    TrainingFormat(
        "some training code",
        ("*.pt", "*.pth", "*.npz", "*.msgpack", "model/*.safetensors"),
        "the converter of that code, or load it there and call `save_pretrained`",
    ),
)


def holds_config(folder: Path) -> bool:
    """Return whether a folder has the configuration of a model or of an adapter, whatever else is missing."""
    with suppress(OSError):
        return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
    return False


def training_format(folder: Path) -> TrainingFormat | None:
    """Return the format of training code that a folder without a transformers' configuration is in."""
    if holds_config(folder):
        return None
    with suppress(OSError):
        return next((f for f in _FORMATS if any(any(folder.glob(pattern)) for pattern in f.files)), None)
    return None


def check_format(folder: Path) -> None:
    """Raise `LmsatError` for a folder in a format of training code, which says what to do."""
    if (found := training_format(folder)) is not None:
        raise LmsatError(
            f"{folder} is not in transformers' format but in that of {found.name}: convert it with {found.convert}, "
            "into the same folder or another"
        )


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
            advice = f"did you mean {meant}?" if (meant := similar_path(path)) is not None else "correct the path"
            raise LmsatError(f"pretrained={pretrained}: there is no such folder; {advice}")
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
        check_format(path)
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
