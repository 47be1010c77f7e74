"""Checkpoints beside which others are seen: which they are, and the tensors that were computed of them."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import safe_name, user_path, write_atomically
from lmsat_plugin.lazy import torch

logger = logging.getLogger(__name__)

PLACES = ("previous", "next", "first", "last")
"""The references that a place in a series names."""
_KEPT = 4
_UNCHECKED = ".unchecked"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The checkpoint beside which another is seen."""

    name: str
    source: str | None = None
    """Its folder, or its name on the Hub; None where it is not at hand."""
    revision: str = "main"
    place: str | None = None
    """What ``reference=`` calls it where a checkpoint is measured alone; None for an average, which is in no file."""
    identity: str | None = None
    """What identifies its weights and how they are loaded; None where nothing is kept of it."""
    weights: str | None = None
    """The commit, or the hash, of its weights, as results note it."""
    reason: str | None = None
    """Why there is none, in a sentence."""
    before: Reference | None = None
    """Its own reference, where that is the one before it."""


def named(setting: str) -> Reference:
    """Return what a setting says of the reference of a checkpoint that is measured alone: a folder or a name."""
    if setting in PLACES:
        reason = (
            f"a checkpoint that is measured alone has no {setting} one: name a checkpoint with reference=FOLDER, "
            "or measure the series with `lmsat sweep`"
        )
        return Reference(name=setting, reason=reason)
    try:
        source, revision = split_name(setting)
    except LmsatError as error:
        return Reference(name=setting, reason=str(error))
    return Reference(name=setting, source=source, revision=revision or "main")


def split_name(setting: str) -> tuple[str, str]:
    """Return the folder or the name on the Hub that a setting states, and the revision after an @, which may be empty.

    Raises `LmsatError` for the home folder of nobody.
    """
    if (folder := user_path(setting)).exists():
        return str(folder), ""
    source, _, revision = setting.partition("@")
    return str(user_path(source)), revision


@dataclass(frozen=True, kw_only=True)
class References:
    """The references of one measured checkpoint, how they are loaded, and where tensors of checkpoints are kept."""

    load: Callable[[Reference], Any] | None = None
    """Loads a reference as the measured model was loaded: a `LoadedModel`. None where nothing can be loaded."""
    by_setting: Mapping[str, Reference] = field(default_factory=dict)
    identity: str | None = None
    """What identifies the measured checkpoint, as `Reference.identity`."""
    kept: KeptTensors | None = None
    """None where no other checkpoint will be measured."""

    def find(self, setting: str) -> Reference:
        """Return the reference that a setting names."""
        return self.by_setting.get(setting) or named(setting)


@dataclass(frozen=True)
class KeptTensors:
    """Tensors that were computed of checkpoints, in files of a folder: the latest few of each name.

    A file is only a short cut: whoever does not find it computes it again. It is read once it is known that the
    checkpoint's files did not change while it was measured (`accept`).
    """

    folder: Path

    def read(self, identity: str | None, name: str, text: str) -> dict[str, torch.Tensor] | None:
        """Return the tensors that were computed of a checkpoint on a text; None where they are not there."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        if identity is None:
            return None
        path = self._path(identity, name, text)
        with suppress(OSError, SafetensorError, ValueError):
            tensors = load(path.read_bytes())
            os.utime(path)
            return tensors
        return None

    def write(self, identity: str, name: str, text: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors, from `accept` on. What cannot be written is computed again when it is needed."""
        from safetensors.torch import save

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            data = save({key: tensor.contiguous() for key, tensor in tensors.items()})
            write_atomically(self._path(identity, name, text).with_suffix(_UNCHECKED), data)
        except (OSError, LmsatError) as error:
            logger.warning("What later checkpoints are compared with is not kept: %s", first_sentence(error))

    def accept(self, identity: str | None) -> None:
        """Have what was written of a checkpoint read from now on."""
        if identity is None:
            return
        with suppress(OSError):
            for path in self.folder.glob(f"*-{_short(identity)}-*{_UNCHECKED}"):
                path.replace(path.with_suffix(".safetensors"))
        self.tidy(_KEPT)

    def holds(self, identity: str | None, name: str) -> bool:
        """Return whether something of this name is kept of a checkpoint, on whatever text."""
        return identity is not None and any(self.folder.glob(f"{_short(name)}-{_short(identity)}-*.safetensors"))

    def tidy(self, keep: int) -> None:
        """Delete all files but the latest ``keep`` of each name."""
        by_name: dict[str, list[tuple[float, Path]]] = {}
        with suppress(OSError):
            for path in self.folder.glob("*.*"):
                by_name.setdefault(path.name.partition("-")[0], []).append((path.stat().st_mtime, path))
        for files in by_name.values():
            for _, path in sorted(files, reverse=True)[keep:]:
                with suppress(OSError):
                    path.unlink()

    def _path(self, identity: str, name: str, text: str) -> Path:
        return self.folder / safe_name(f"{_short(name)}-{_short(identity)}-{_short(text)}.safetensors")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
