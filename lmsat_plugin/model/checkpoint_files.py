"""The files that make a checkpoint, which of its weights transformers loads, and whether a folder has them whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import check_file, similar_path

CONFIG_FILES = ("config.json", "generation_config.json", "adapter_config.json")
TOKENIZER_FILES = (
    *("tokenizer*", "vocab*", "merges.txt", "*.model", "*.tiktoken", "chat_template*"),
    *("special_tokens_map.json", "added_tokens.json"),
)
MODEL_CONFIGS = ("config.json", "adapter_config.json")
"""Of a model and of an adapter: a folder with one of them is a checkpoint."""
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
"""Patterns of the files of weights; those above are the configurations' and the tokenizers'."""
# In the order in which transformers looks for them; an adapter where there is nothing else.
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", *_ADAPTERS)

STATE_DICTS = ("*.pt", "*.pth", "*.ckpt")
"""Patterns of the files that ``torch.save`` and Lightning write."""
NO_MODEL = re.compile(
    r"optim|rng_state|random_state|schedul|training_args|scaler|train_state|dataloader", re.IGNORECASE
)
"""What is in the names of a training's files and folders that hold no model."""


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
    converter: str
    """What makes a checkpoint for transformers of one."""


_OWN = "`lmsat convert`"
_FORMATS = (
    TrainingFormat("torch.distributed.checkpoint", ("*.distcp", "*/*.distcp"), _OWN),
    TrainingFormat("litgpt", ("lit_model.pth",), "`litgpt convert_from_litgpt`"),
    TrainingFormat("nanotron", ("model_config.json", "model/*.safetensors"), "nanotron's convert_nanotron_to_hf.py"),
    TrainingFormat(
        "DeepSpeed",
        ("mp_rank_*_model_states.pt", "*/mp_rank_*_model_states.pt", "layer_*-model_*-model_states.pt"),
        "DeepSpeed's zero_to_fp32.py",
    ),
    TrainingFormat(
        "Megatron", ("mp_rank_*", "model_optim_rng.pt", "tp_rank_*"), "megatron-bridge or Megatron's own converter"
    ),
    TrainingFormat("Lightning", ("*.ckpt",), _OWN),
    TrainingFormat("torch.save", ("*.pt", "*.pth"), _OWN),
    TrainingFormat(
        "some training code",
        ("*.npz", "*.msgpack", "model/*.safetensors"),
        "the converter of that code, or load it there and call `save_pretrained`",
    ),
)


def holds_config(folder: Path) -> bool:
    """Return whether a folder has the configuration of a model or of an adapter, whatever else is missing."""
    with suppress(OSError):
        return any((folder / name).is_file() for name in MODEL_CONFIGS)
    return False


def holds_weights(folder: Path) -> bool:
    """Return whether a folder has files that transformers would look into for weights."""
    with suppress(OSError):
        return bool(_chosen(folder))
    return False


def holds_model(folder: Path) -> bool:
    """Return whether a folder has a configuration and weights of a whole model, whether or not an adapter, too."""
    with suppress(OSError):
        return (folder / "config.json").is_file() and not all(name in _ADAPTERS for name in _chosen(folder))
    return False


def holds_tokenizer(folder: Path) -> bool:
    """Return whether a folder has files of which a tokenizer can be made."""
    return any(any(folder.glob(pattern)) for pattern in ("tokenizer*", "vocab*", "*.model", "*.tiktoken"))


def training_format(path: Path) -> TrainingFormat | None:
    """Return the format of training code that a file, or a folder without a transformers' configuration, is in."""
    if holds_config(path):
        return None
    with suppress(OSError):
        if path.is_file():
            return next((f for f in _FORMATS if any(fnmatchcase(path.name, pattern) for pattern in f.files)), None)
        return next((f for f in _FORMATS if any(any(path.glob(pattern)) for pattern in f.files)), None)
    return None


def check_format(path: Path) -> None:
    """Raise `LmsatError` for a file or a folder in a format of training code, which says what to do."""
    if (found := training_format(path)) is not None:
        key = "`config`" if found.converter == _OWN else "`convert`"
        raise LmsatError(
            f"{path} is not in transformers' format but in that of {found.name}: convert it with {found.converter}, "
            f"or set {key} in a sweep's configuration"
        )


def local_folder(pretrained: str, argument: str = "pretrained") -> Path | None:
    """Return the folder that ``pretrained`` names, or None if it may be a name on the Hub.

    ``argument`` is what a sentence calls it. Raises `LmsatError` for a path without a folder.
    """
    path = Path(pretrained)
    try:
        path = path.expanduser()
        exists = path.exists()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or first_sentence(error)
        raise LmsatError(f"{argument}={pretrained} cannot be read ({reason}); correct the path") from None
    if not exists:
        looks_local = path.is_absolute() or pretrained.startswith((".", "~")) or pretrained.count("/") > 1
        if looks_local or (os.sep != "/" and os.sep in pretrained):
            advice = f"did you mean {meant}?" if (meant := similar_path(path)) is not None else "correct the path"
            raise LmsatError(f"{argument}={pretrained}: there is no such folder; {advice}")
        return None
    if not path.is_dir():
        raise LmsatError(f"{argument}={pretrained} is a file: give the folder that holds it")
    return path


def weight_files(sizes: Mapping[str, int]) -> dict[str, int]:
    """Return, of a checkpoint's files and their sizes, its weights and their index.

    As transformers does: safetensors before pickles, one file before shards. There may be none.
    """
    for name in _WEIGHTS:
        if name in sizes:
            return {name: sizes[name]}
        index = f"{name}.index.json"
        if index not in sizes:
            continue
        stem, suffix = name.rsplit(".", 1)
        top = [other for other in sizes if "/" not in other and other.endswith(f".{suffix}")]
        shards = [other for other in top if re.fullmatch(rf"{stem}-\d+-of-\d+\.{suffix}", other)]
        # The index may name its shards in another way.
        shards = shards or [
            other for other in top if not re.match("consolidated|adapter|training_args|optimizer", other)
        ]
        return {index: sizes[index], **{shard: sizes[shard] for shard in shards}}
    return {}


def needed_files(sizes: Mapping[str, int], *, trust_remote_code: bool = False) -> dict[str, int]:
    """Return, of a repository's files and their sizes, those that loading a model and its tokenizer takes.

    Where there is an adapter, it is what transformers takes from the Hub, whatever model lies beside it.
    """
    if "adapter_config.json" in sizes:
        beside = ("config.json", "model", "pytorch_model")
        sizes = {name: size for name, size in sizes.items() if not name.startswith(beside)}

    def is_needed(name: str) -> bool:
        if name.endswith(".py"):
            return trust_remote_code
        return any(fnmatchcase(name, pattern) for pattern in (*CONFIG_FILES, *TOKENIZER_FILES))

    small = {name: size for name, size in sizes.items() if "/" not in name and is_needed(name)}
    return {**small, **weight_files(sizes)}


def weight_index(folder: Path) -> Path | None:
    """Return the index by which transformers loads a folder's weights; None where there are no shards."""
    return next((folder / name for name in _chosen(folder) if name.endswith(".index.json")), None)


def _chosen(folder: Path) -> dict[str, int]:
    """Return the names of the weights that transformers would load, an index among them."""
    names = {path.name: 0 for path in folder.iterdir() if path.is_file()}
    try:
        named = json.loads((folder / "config.json").read_text("utf-8")).get("transformers_weights")
    except (OSError, ValueError, AttributeError):
        # transformers will say what is wrong with it.
        named = None
    return {named: 0} if isinstance(named, str) else weight_files(names)


def weight_paths(folder: Path, *, whole: bool = True) -> list[Path]:
    """Return the files of a folder from which transformers loads its weights, whatever else lies beside them.

    Without ``whole``, files that the index names may be missing. Raises `LmsatError` if there are none, or if one is
    missing.
    """
    try:
        names = {path.name for path in folder.iterdir() if path.is_file()}
    except OSError as error:
        check_format(folder)
        raise LmsatError(f"{folder} cannot be read ({error.strerror}): correct the path") from error
    found, index = _chosen(folder), weight_index(folder)
    if index is not None:
        found = dict.fromkeys(read_index(index).values(), 0)
    missing = sorted(name for name in found if not (folder / name).is_file())
    if missing and whole:
        where = index.name if index else "config.json"
        raise LmsatError(f"{folder} lacks {missing[0]}, which its {where} names: copy or download it again")
    if not found:
        check_format(folder)
        others = sorted(name for name in names if name.endswith((".safetensors", ".bin")))
        only = f", only {others[0]}, which transformers does not look for" if others else ""
        raise LmsatError(
            f"pretrained={folder} has no weights (model.safetensors or pytorch_model.bin, or shards with their index)"
            f"{only}: give a whole checkpoint"
        )
    return [folder / name for name in sorted(found) if name not in missing]


def read_index(path: Path) -> dict[str, str]:
    """Return the shard of each tensor. Raises `LmsatError` for a file that is no index."""
    try:
        shards = json.loads(path.read_text("utf-8"))["weight_map"]
        if not all(isinstance(shard, str) for shard in shards.values()):
            raise ValueError("a shard's name is no text")
        return shards
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise LmsatError(
            f"{path} is no index of weights ({first_sentence(error)}): copy or download it again"
        ) from error


def unread_weights(folder: Path) -> list[str]:
    """Return what is named as the weights that transformers loads are and is not loaded, such as an old index.

    Weights in another format, which many checkpoints have besides, are none of it.
    """
    read = {path.name for path in weight_paths(folder, whole=False)}
    stem, suffix = ("pytorch_model", "bin") if any(name.endswith(".bin") for name in read) else ("model", "safetensors")
    pattern = rf"{stem}(-\d+-of-\d+)?\.{suffix}"
    if f"{stem}.{suffix}" in read:
        pattern += r"(\.index\.json)?"
    return sorted(path.name for path in folder.iterdir() if path.name not in read and re.fullmatch(pattern, path.name))


def check_checkpoint_folder(
    pretrained: str, subfolder: str = "", gguf_file: str | None = None, *, whole: bool = True
) -> None:
    """Raise `LmsatError` for a missing folder, a folder without a configuration, and missing or cut weights.

    A name that is not a local folder and may be one on the Hub passes. Only the files that transformers loads are
    looked at; without ``whole`` some of the shards may be missing.
    """
    path = local_folder(pretrained)
    if path is None:
        return
    path = path / subfolder
    if gguf_file is not None:
        if not (path / gguf_file).is_file():
            raise LmsatError(f"pretrained={path} has no file {gguf_file}: correct gguf_file")
        return
    if not (path / "config.json").is_file():
        check_format(path)
        raise LmsatError(f"pretrained={path} has no config.json: give the folder of a saved checkpoint")
    for file in weight_paths(path, whole=whole):
        if file.suffix != ".safetensors":
            continue
        try:
            check_file(file)
            with safe_open(file, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise LmsatError(
                f"{file} is cut short or not a safetensors file ({first_sentence(error)}): copy or download it again"
            ) from error
