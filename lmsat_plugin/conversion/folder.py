"""Write a training's checkpoint as a folder that transformers reads: all of it, or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.conversion.names import FittedNames, Rename, fit_names
from lmsat_plugin.conversion.sources import TensorSource, open_source
from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import PART, hold, is_free, read_file, write_atomically
from lmsat_plugin.hub import hub_errors
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.checkpoint_files import TOKENIZER_FILES, local_folder
from lmsat_plugin.model.head_files import write_safetensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_COPIED = ("config.json", "generation_config.json", *TOKENIZER_FILES, "*.py")
"""What a converted folder has of the configuration's."""
_MARK = ".lmsat.mark"


def convert(
    source: Path, out: Path, *, config: Path, rename: Rename = (), trust_remote_code: bool = False
) -> dict[str, Any]:
    """Write the checkpoint ``source`` to a new folder, ``out``, that is there whole or not at all; return what to note.

    Tensors keep their type; what is computed with is the widest of these. They are read one after another, so that
    at most one is in memory besides what the system keeps of files.

    Args:
        source: A folder of torch.distributed.checkpoint, or a file of ``torch.save``, or the folder with one.
        out: A folder that is not there yet, or is empty.
        config: A folder with the model's config.json and its tokenizer: see `config_folder`.
        rename: See `fit_names`.
        trust_remote_code: Whether to run the configuration's own code.

    Raises `LmsatError` for a checkpoint that cannot be read or does not fit the configuration.
    """
    model = _architecture(config, trust_remote_code=trust_remote_code)
    tensors = open_source(source)
    fitted = fit_names(tensors.tensors, model, rename, checkpoint=str(source), config=str(config))
    notes = _notes(tensors, fitted)
    with making(out) as folder:
        copy_config(config, folder, dtype=_widest(tensors.tensors[name] for name in fitted.sources.values()))
        _write_weights(folder / "model.safetensors", tensors, fitted)
    return notes


def config_folder(name: str) -> Path:
    """Return the folder of a configuration and its tokenizer, fetched from the Hub unless it is one here.

    Raises `LmsatError` where there is none, and `PassingError` where the Hub is away.
    """
    if (folder := local_folder(name, "config")) is None:
        from huggingface_hub import snapshot_download

        with hub_errors(name):
            folder = Path(snapshot_download(name, allow_patterns=list(_COPIED)))
    if not (folder / "config.json").is_file():
        raise LmsatError(f"config={name} has no config.json: give a folder or a repository with one and its tokenizer")
    return folder


def config_files(folder: Path) -> list[Path]:
    """Return what a converted folder has of a configuration's: that itself, the tokenizer, code of its own."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in _COPIED)
    )


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside another one, whose place it takes once all is written.

    What killed processes have left of earlier ones is removed. Raises `LmsatError` where ``folder`` holds something.
    """
    temporary, handle = None, None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise LmsatError(f"{folder} is there already: remove it, or give another folder")
        for stray in folder.parent.glob(f".{folder.name}.*{PART}"):
            if is_free(stray / _MARK):
                shutil.rmtree(stray, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=PART, dir=folder.parent))
        handle = hold(temporary / _MARK)
        yield temporary
        (temporary / _MARK).unlink()
        temporary.chmod(0o755)
        temporary.rename(folder)
        temporary = None
    except OSError as error:
        raise LmsatError(f"cannot write {folder} ({error.strerror}): free space or choose another folder") from error
    finally:
        if handle is not None:
            os.close(handle)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def copy_config(config: Path, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Copy a configuration and its tokenizer to a folder, without what is there. ``dtype`` is that of the weights."""
    for path in config_files(config):
        if not (folder / path.name).exists():
            data = read_file(path)
            if path.name == "config.json" and dtype is not None:
                values = json.loads(data)
                values = {key: values[key] for key in values if key not in ("torch_dtype", "transformers_weights")}
                data = json.dumps({**values, "dtype": str(dtype).removeprefix("torch.")}, indent=2).encode()
            write_atomically(folder / path.name, data)


def _architecture(config: Path, *, trust_remote_code: bool) -> PreTrainedModel:
    """Return the model of a configuration, on the meta device."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from lmsat_plugin.model.loading import check_decoder

    try:
        settings = AutoConfig.from_pretrained(config, trust_remote_code=trust_remote_code)
        check_decoder(settings, str(config))
        if getattr(settings, "quantization_config", None) is not None:
            raise LmsatError(
                f"{config} is of a quantised model: give the configuration that the model was trained with"
            )
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(settings, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise LmsatError(
            f"{config} has no configuration of a causal model ({first_sentence(error)}): correct it"
        ) from error


def _widest(tensors: Iterator[torch.Tensor]) -> torch.dtype | None:
    """Return the type that holds the values of all tensors of floats; None where there are none."""
    dtypes = [tensor.dtype for tensor in tensors if tensor.is_floating_point() and tensor.element_size() > 1]
    widest = None
    for dtype in dtypes:
        widest = dtype if widest is None else torch.promote_types(widest, dtype)
    return widest


def _write_weights(path: Path, tensors: TensorSource, fitted: FittedNames) -> None:
    like = {name: tensors.tensors[source] for name, source in fitted.sources.items()}
    write_safetensors(path, like, {"format": "pt"}, read=lambda name: tensors.read(fitted.sources[name]))


def _notes(tensors: TensorSource, fitted: FittedNames) -> dict[str, Any]:
    notes: dict[str, Any] = {"format": tensors.format, "tensors": len(fitted.sources)}
    if fitted.stripped:
        notes["stripped"] = fitted.stripped
    if fitted.unread:
        notes["unread"] = len(fitted.unread)
    return notes
