"""Adapters of PEFT, on disk and on the Hub: their files, the base model that they name, and what of it they change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import constants, snapshot_download
from safetensors import SafetensorError, safe_open

from lmsat_plugin.errors import LmsatError, PassingError, first_sentence
from lmsat_plugin.files import FileStamp, check_file, stamp_file, user_path
from lmsat_plugin.hub import cached_snapshot, hub_errors, list_files, list_refs
from lmsat_plugin.model.checkpoint_files import (
    TOKENIZER_FILES,
    check_checkpoint_folder,
    holds_model,
    holds_tokenizer,
    local_folder,
    needed_files,
    weight_paths,
)

ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# What they do lies outside of the model's own modules: in its inputs, or in what their wrapper hands to the layers.
_OUTSIDE = {
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "CPT",
    "CARTRIDGE",
    "XLORA",
    "POLY",
}
_OF_NO_EFFECT = {"base_model_name_or_path", "revision", "peft_version", "inference_mode"}
_COMMIT = re.compile(r"[0-9a-f]{40}")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter on its base model: a checkpoint in a folder with adapter_config.json."""

    name: str
    """What it is called: a folder, or a name on the Hub."""
    folder: Path
    """Where its files are."""
    config: Mapping[str, Any]
    base: str | None
    """Its base model: a folder, or a name on the Hub; None if its configuration names none."""
    revision: str | None = None
    """The base model's, on the Hub."""
    commit: str | None = None
    """The adapter's own, on the Hub."""

    @property
    def kind(self) -> str:
        """Its kind, as PEFT calls it: LORA, IA3, ..."""
        return str(self.config.get("peft_type"))

    @property
    def settings(self) -> dict[str, Any]:
        """What of its configuration says how it works; where the base model lies is no part of it."""
        settings = {key: value for key, value in self.config.items() if key not in _OF_NO_EFFECT}
        targets = settings.get("target_modules")
        # PEFT saves a set, in any order.
        return {**settings, "target_modules": sorted(targets)} if isinstance(targets, list) else settings

    @property
    def weights(self) -> Path:
        """The file of its weights. Raises `LmsatError` if there is none."""
        path = next((self.folder / name for name in _WEIGHTS if (self.folder / name).is_file()), None)
        if path is None:
            raise LmsatError(f"{self.folder} has an {ADAPTER_CONFIG} and no {_WEIGHTS[0]}: give the whole adapter")
        return path

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]] | None:
        """The shapes of its tensors by name; None for a pickle. Raises `LmsatError` for a file that is cut."""
        if self.weights.suffix != ".safetensors":
            return None
        try:
            check_file(self.weights)
            with safe_open(self.weights, framework="np") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise LmsatError(
                f"{self.weights} is cut short or not a safetensors file ({first_sentence(error)}): "
                "copy or download it again"
            ) from error

    @property
    def changes_ends(self) -> bool:
        """Whether it may change more than blocks: the LM head, the embeddings, a last norm."""
        names = self.shapes
        whole_modules = self.config.get("modules_to_save") or self.config.get("trainable_token_indices")
        return bool(whole_modules) or not names or not all(re.search(r"\.\d+\.", name) for name in names)

    @property
    def is_on_itself(self) -> bool:
        """Whether its base model is in its own folder."""
        return self.base == str(self.folder)

    @property
    def base_folder(self) -> Path:
        """The folder of the base model, which is fetched into the user's cache if it is on the Hub.

        Raises `LmsatError` if it is missing, cannot be had, is incomplete, or is an adapter itself.
        """
        base, folder = self._named_base
        if folder is None:
            folder = self._asked(lambda: _fetched(base, self.revision))
        if not self.is_on_itself and (folder / ADAPTER_CONFIG).is_file():
            raise LmsatError(
                f"{self._called} is on {self.base}, which has an {ADAPTER_CONFIG} of its own: merge that one first"
            )
        try:
            check_checkpoint_folder(str(folder))
        except LmsatError as error:
            raise LmsatError(f"the base model of {self._called}: {error}") from error
        return folder

    @property
    def base_commit(self) -> str | None:
        """The commit of a base model on the Hub, of which the Hub may be asked; None for a folder. Raises as above."""
        base, folder = self._named_base
        return None if folder is not None else self._asked(lambda: _commit(base, self.revision))

    @property
    def tokenizer_folder(self) -> Path:
        """The folder of the tokenizer: the adapter's own, or the base model's where it has none."""
        return self.folder if holds_tokenizer(self.folder) else self.base_folder

    def check(self) -> None:
        """Raise `LmsatError` for a kind that cannot be measured, and for weights that are missing or cut."""
        check_kind(self._called, self.config)
        # Reading the shapes tells.
        _ = self.shapes

    def base_stamp(self) -> dict[str, FileStamp]:
        """Return the sizes and times of the files that the base model is loaded from. Raises as `base_folder`."""
        folder = self.base_folder
        return {str(path): stamp_file(path) for path in (folder / "config.json", *weight_paths(folder))}

    def describe(self, *, merged: bool = False) -> dict[str, Any]:
        """Return what results note of it."""
        commit = None
        with suppress(LmsatError):
            commit = self.base_commit
        noted = {"adapter": self.name, "kind": self.kind, "base": self.base, "base_commit": commit, "merged": merged}
        return {key: value for key, value in noted.items() if value is not None}

    @property
    def _called(self) -> str:
        return f"the adapter {self.name}"

    @property
    def _named_base(self) -> tuple[str, Path | None]:
        """The base model's name, and its folder if it is one. Raises `LmsatError` if there is none."""
        if self.base is None:
            raise LmsatError(
                f"{self.folder / ADAPTER_CONFIG} names no base model: write it there as base_model_name_or_path, "
                f"or give pretrained=BASE,peft={self.name}"
            )
        try:
            return self.base, local_folder(self.base)
        except LmsatError:
            raise LmsatError(self._missing("is not there")) from None

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except PassingError:
            raise
        except LmsatError as error:
            raise LmsatError(self._missing(f"cannot be had ({error})")) from error

    def _missing(self, what: str) -> str:
        at = f" at {self.revision}" if self.revision else ""
        return (
            f"the base model {self.base}{at}, which {self.folder / ADAPTER_CONFIG} names, {what}: "
            f"correct base_model_name_or_path there, or give pretrained=BASE,peft={self.name}"
        )


def check_kind(name: str, config: Mapping[str, Any]) -> None:
    """Raise `LmsatError` for the configuration of an adapter that is more than layers within the model."""
    kind = str(config.get("peft_type")).removeprefix("PeftType.")
    if config.get("alora_invocation_tokens"):
        kind = "aLoRA"
    elif kind not in _OUTSIDE:
        return
    raise LmsatError(
        f"{name} is of the kind {kind}, which works outside of the model's own layers, so that these are not what the "
        "model is: leave it out"
    )


def read_adapter(folder: Path, name: str | None = None, *, of_hub: bool = False) -> Adapter | None:
    """Return the adapter in a folder; None if there is none.

    Its base is the whole model that the folder holds besides, as transformers has it of folders but not ``of_hub``, and
    otherwise the one that its configuration names. Raises `LmsatError` for a configuration that cannot be read.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text("utf-8"))
        base, revision = config.get("base_model_name_or_path") or None, config.get("revision")
        if not isinstance(config.get("peft_type"), str) or not isinstance(base, str | None):
            raise ValueError("peft_type or base_model_name_or_path is no text")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise LmsatError(
            f"{path} is no configuration of an adapter ({first_sentence(error)}): copy or download it again"
        ) from error
    if holds_model(folder) and not of_hub:
        base, revision = str(folder), None
    return Adapter(name=name or str(folder), folder=folder, config=config, base=base, revision=revision)


def find_adapter(
    pretrained: str, *, peft: str | None = None, revision: str | None = None, subfolder: str | None = None
) -> Adapter | None:
    """Return the adapter that ``peft`` names, on the base ``pretrained``, or the one that ``pretrained`` is, or None.

    ``revision`` is that of what is on the Hub; the Hub is asked whether a name there is one of an adapter. Raises
    `LmsatError` for a folder that is missing, and for a ``peft`` without an adapter.
    """
    if peft is not None:
        peft = str(peft)
        on_hub = None if user_path(peft).is_dir() else _hub_adapter(peft, revision, None)
        found = read_adapter(on_hub[0] if on_hub else user_path(peft), peft)
        if found is None:
            raise LmsatError(f"peft={peft} has no {ADAPTER_CONFIG}: give the folder, or the Hub's name, of an adapter")
        if (user_path(pretrained) / ADAPTER_CONFIG).is_file():
            raise LmsatError(f"pretrained={pretrained}, the base of peft={peft}, is an adapter itself: merge it first")
        return replace(found, base=pretrained, revision=revision)
    folder = local_folder(pretrained)
    if folder is None:
        on_hub = _hub_adapter(pretrained, revision, subfolder)
        found = None if on_hub is None else read_adapter(on_hub[0], pretrained, of_hub=True)
        return found and replace(found, commit=on_hub and on_hub[1])
    return read_adapter(folder / (subfolder or ""))


def tokenizer_folder(folder: Path) -> Path:
    """Return the folder of a checkpoint's tokenizer: an adapter without one has its base model's."""
    adapter = read_adapter(folder)
    return folder if adapter is None else adapter.tokenizer_folder


def _hub_adapter(name: str, revision: str | None, subfolder: str | None) -> tuple[Path, str] | None:
    """Fetch the adapter of a repository on the Hub; return its folder and commit, or None if there is none.

    Nor is there one where the Hub cannot be asked: loading the model will say what is wrong.
    """
    from transformers.utils import find_adapter_config_file

    try:
        path = find_adapter_config_file(name, revision=revision, subfolder=subfolder or "")
    except (OSError, ValueError, RuntimeError):
        return None
    if path is None:
        return None
    folder, above = Path(path).parent, f"{subfolder}/" if subfolder else ""
    commit = folder.parents[len(Path(above).parts) - 1].name if above else folder.name
    if not constants.HF_HUB_OFFLINE:
        with hub_errors(name, revision):
            wanted = [f"{above}{pattern}" for pattern in ("adapter_*", *TOKENIZER_FILES)]
            snapshot_download(name, revision=commit, allow_patterns=wanted)
    return folder, commit


@lru_cache(maxsize=64)
def _commit(name: str, revision: str | None) -> str:
    """Return the commit of a revision on the Hub, which is asked once a process."""
    if revision and _COMMIT.fullmatch(revision):
        return revision
    commit = list_refs(name).get(revision or "main")
    if commit is None:
        raise LmsatError(f"{name} has no revision {revision or 'main'}")
    return commit


@lru_cache(maxsize=64)
def _fetched(name: str, revision: str | None) -> Path:
    """Return the folder in the user's cache with a model of the Hub, which is fetched if need be."""
    commit = _commit(name, revision)
    if constants.HF_HUB_OFFLINE:
        names = ["config.json"]
    else:
        sizes = {file: each.size for file, each in list_files(name, commit, revision).items()}
        # Whether its code is run, loading decides.
        names = list(needed_files(sizes, trust_remote_code=True))
    folder = cached_snapshot(name, commit, names)
    if folder is None:
        with hub_errors(name, revision):
            folder = Path(snapshot_download(name, revision=commit, allow_patterns=names))
    return folder
