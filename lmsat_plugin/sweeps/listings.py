"""What the Hub states of the files of each commit: asked eight at once, kept on disk, and never asked twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import folder_name, write_atomically
from lmsat_plugin.hub import HubFile, list_files
from lmsat_plugin.model.checkpoint_files import MODEL_CONFIGS, TOKENIZER_FILES, needed_files, weight_files
from lmsat_plugin.passing import patiently
from lmsat_plugin.series.checkpoint import Checkpoint

_AT_ONCE = 8

Content = tuple[tuple[str, str], ...]
"""Names and digests of the files that loading a checkpoint takes: equal ones, equal checkpoints."""


class Listings:
    """The files of commits, which never change, by name and with size and digest.

    Args:
        folder: Where they are kept from one process to the next, once the folder above it is there; None for nowhere.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._files: dict[tuple[str, str], Mapping[str, HubFile]] = {}

    def known(self, checkpoint: Checkpoint) -> Mapping[str, HubFile] | None:
        """Return the files of a checkpoint's commit, if they are known without asking."""
        key = (checkpoint.pretrained, str(checkpoint.commit))
        if key not in self._files and (path := self._path(key)) is not None:
            with suppress(OSError, ValueError, TypeError, AttributeError):
                read = json.loads(path.read_bytes())
                self._files[key] = {str(name): HubFile(int(size), digest) for name, (size, digest) in read.items()}
        return self._files.get(key)

    def files(self, checkpoint: Checkpoint) -> Mapping[str, HubFile]:
        """Return the files of a checkpoint's commit, by their path in the repository.

        Raises `LmsatError` if the Hub cannot be asked, or refuses.
        """
        if (files := self.known(checkpoint)) is None:
            key = (checkpoint.pretrained, str(checkpoint.commit))
            files = self._files[key] = list_files(*key, checkpoint.revision)
            if (path := self._path(key)) is not None and path.parents[1].parent.is_dir():
                with suppress(LmsatError, OSError):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(path, json.dumps({name: list(file) for name, file in files.items()}).encode())
        return files

    def size(self, checkpoint: Checkpoint) -> int | None:
        """Return the bytes of a checkpoint's weights; None if it has none, or they are not known without asking."""
        files = self.known(checkpoint) if checkpoint.on_hub else None
        if files is None:
            return None
        above = f"{checkpoint.subfolder}/" if checkpoint.subfolder else ""
        sizes = {name.removeprefix(above): file.size for name, file in files.items() if name.startswith(above)}
        return sum(weight_files(sizes).values()) or None

    def ask(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Ask for the files of checkpoints of the Hub, eight at once. Waits for trouble to pass; raises as `files`."""
        commits = {(each.pretrained, each.commit): each for each in checkpoints if each.on_hub}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda each: patiently(partial(self.files, each)), commits.values()))

    def content(self, checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> Content | None:
        """Return what two checkpoints of equal files have in common; None if it is not known without asking."""
        files = self.known(checkpoint) if checkpoint.on_hub else None
        if files is None:
            return None
        sizes = {name: file.size for name, file in files.items()}
        needed = files_to_load(sizes, checkpoint.subfolder, trust_remote_code=trust_remote_code)
        digests = {local_name(name, checkpoint.subfolder): files[name].digest for name in needed}
        if not weight_files(dict.fromkeys(digests, 0)):
            return None
        stated = [(name, digest) for name, digest in sorted(digests.items()) if digest is not None]
        return tuple(stated) if len(stated) == len(digests) else None

    def _path(self, key: tuple[str, str]) -> Path | None:
        return None if self._folder is None else self._folder / folder_name(key[0]) / f"{folder_name(key[1])}.json"


def files_to_load(
    sizes: Mapping[str, int], subfolder: str | None = None, *, trust_remote_code: bool = False
) -> dict[str, int]:
    """Return, of a repository's files and their sizes, those that loading a checkpoint and its tokenizer takes.

    Where a subfolder lacks a configuration, a tokenizer or code, those of the nearest folder above it are needed.
    """
    if subfolder is None:
        return needed_files(sizes, trust_remote_code=trust_remote_code)
    found: dict[str, int] = {}
    lacking = [MODEL_CONFIGS, TOKENIZER_FILES, ("*.py",)]
    parts = subfolder.split("/")
    for count in range(len(parts), -1, -1):
        prefix = "".join(f"{part}/" for part in parts[:count])
        inside = {name.removeprefix(prefix): size for name, size in sizes.items() if name.startswith(prefix)}
        needed = needed_files(inside, trust_remote_code=trust_remote_code)
        for patterns in list(lacking):
            if matching := [name for name in needed if any(fnmatchcase(name, pattern) for pattern in patterns)]:
                found.update((prefix + name, needed[name]) for name in matching)
                lacking.remove(patterns)
        if count == len(parts):
            found.update((prefix + name, size) for name, size in needed.items())
    return found


def local_name(name: str, subfolder: str | None) -> str:
    """Return what a file of a repository is called in the folder that is loaded."""
    if subfolder is None:
        return name
    return name.removeprefix(f"{subfolder}/") if name.startswith(f"{subfolder}/") else name.rpartition("/")[2]
