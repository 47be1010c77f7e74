"""Files that ``torch.save`` wrote: state dicts, alone or among other things, as in Lightning's files."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import check_file
from lmsat_plugin.lazy import torch

_NESTED = ("state_dict", "model_state_dict", "model", "module")
"""The keys under which training code keeps a model's state dict."""
_DEEPEST = 4


class StateDictFile:
    """The tensors of a state dict in a file of ``torch.save``, which are read from the disk as they are asked for.

    Raises `LmsatError` for a file that is broken, holds more than tensors and plain objects, or has no state dict.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = _load(path)
        self.format = "Lightning" if "pytorch-lightning_version" in content else "torch.save"
        self.tensors: dict[str, torch.Tensor] = {
            str(name): value for name, value in _state_dict(content).items() if isinstance(value, torch.Tensor)
        }
        """All tensors by name."""
        if not self.tensors:
            keys = ", ".join(sorted(map(str, content))[:8])
            raise LmsatError(
                f"{path} holds no state dict, neither by itself nor under {', '.join(_NESTED)} (it has {keys}): "
                "give another file, or a command with `convert`"
            )

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor."""
        return self.tensors[name]


def _load(path: Path) -> Mapping[Any, Any]:
    try:
        check_file(path)
        # Files of old versions of torch cannot be mapped into memory.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # torch's message recommends to run the code.
        raise LmsatError(
            f"{path} holds more than tensors{_named(path)}, and is not loaded, since a pickle may run any code: save "
            "the model's state_dict alone, or give a command with `convert` where you trust it"
        ) from error
    except OSError as error:
        raise LmsatError(f"{path} cannot be read ({error.strerror or first_sentence(error)}): copy it again") from error
    except Exception as error:
        # A broken file raises anything.
        raise LmsatError(f"{path} is cut short or broken ({first_sentence(error)}): copy it again") from error
    if not isinstance(content, Mapping):
        raise LmsatError(f"{path} holds a {type(content).__name__} and no state dict: give another file")
    return content


def _named(path: Path) -> str:
    """Return which classes a file names that are not loaded, such as those of a Lightning file's hyperparameters."""
    with suppress(Exception):
        if names := torch.serialization.get_unsafe_globals_in_checkpoint(path):
            return f", such as {min(names)}"
    return ""


def _state_dict(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return the part of a file's content that holds a model's tensors."""
    for _ in range(_DEEPEST):
        nested = next((content[key] for key in _NESTED if isinstance(content.get(key), Mapping)), None)
        if nested is None:
            break
        content = nested
    return content
