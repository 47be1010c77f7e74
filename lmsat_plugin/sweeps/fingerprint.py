"""Identify a checkpoint on disk by the content of its files, recognise it later, and notice when its files change."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.files import FileStamp, read_file, stamp_file
from lmsat_plugin.model.adapters import Adapter, read_adapter
from lmsat_plugin.model.checkpoint_files import CONFIG_FILES, MODEL_CONFIGS, TOKENIZER_FILES, WEIGHT_FILES
from lmsat_plugin.sweeps.weights import hash_weights, read_ahead

_SMALL = (*CONFIG_FILES, *TOKENIZER_FILES)
# What else transformers may read.
_OTHERS = ("*.index.json", "adapter_model.bin", "*.py")
# Clocks of file systems tick every few ms, some only every two seconds: what is written twice within a tick looks the
# same.
_TICK_NS, _LONG_TICK_NS = 20_000_000, 2_000_000_000

Stamp = dict[str, list[int]]
"""Each file's size in bytes, and its times of modification and of change in ns. Older results lack the last."""
RECIPE = "converted by "
"""How the entry of a stamp begins that says how the files are converted; it ends with the recipe's digest."""


@dataclass(frozen=True)
class Fingerprint:
    """The hashes that identify a checkpoint, whatever its name."""

    identity: str
    """Hash of all that makes the model: weights, configuration, tokenizer, code of its own, an adapter's base."""
    weights_sha256: str


class ChangedError(PassingError):
    """A checkpoint's files changed while it was measured: what was measured belongs to no one checkpoint."""

    tries = 4


@dataclass(frozen=True)
class SeenFiles:
    """A checkpoint's files as they were before they were hashed."""

    folder: Path
    """Or the checkpoint's one file."""
    files: dict[str, FileStamp | tuple[()]]
    """By name; those of an adapter's base model by their path, and one on the Hub by its commit, without a stamp."""
    whole: bool = False
    """Whether all files count, those in its folders too, and not those alone that transformers reads."""

    @classmethod
    def of(cls, folder: Path, *, whole: bool = False) -> SeenFiles:
        """Look at a folder's files without reading them. Raises `PassingError` if the folder is gone."""
        if not folder.exists():
            with suppress(OSError):
                if any(folder.parent.iterdir()):
                    raise ChangedError(f"{folder} is gone: put it back, or leave it out", source=str(folder))
            raise PassingError(f"{folder.parent} is empty or gone: mount it again", source=str(folder.parent))
        files = _look(folder, whole)
        newest = max((max(times) for _, *times in filter(None, files.values())), default=0)
        tick = _TICK_NS if newest % 1_000_000_000 else _LONG_TICK_NS
        # The clock of another machine may be ahead.
        if time.time_ns() - newest < tick:
            time.sleep(tick / 1e9)
            files = _look(folder, whole)
        return cls(folder, files, whole)

    @property
    def stamp(self) -> Stamp:
        """What results note of the files."""
        return {name: list(seen) for name, seen in sorted(self.files.items())}

    def check(self, *, may_grow: bool = False) -> None:
        """Raise `ChangedError` if a file has changed since, is gone, or is new, which ``may_grow`` allows."""
        now = _look(self.folder, self.whole)
        names = self.files.keys() if may_grow else self.files.keys() | now.keys()
        if changed := sorted(name for name in names if now.get(name) != self.files.get(name)):
            raise ChangedError(
                f"{self.folder / changed[0]} changed while the checkpoint was measured: "
                "start again when nothing writes to it any more",
                source=str(self.folder),
            )


def _look(folder: Path, whole: bool) -> dict[str, FileStamp | tuple[()]]:
    files: dict[str, FileStamp | tuple[()]] = {}
    for path, stamp in _stamps(folder, whole):
        files[path.name if path == folder else path.relative_to(folder).as_posix()] = stamp
    # Loading an adapter will say what is wrong with it.
    with suppress(LmsatError):
        if not whole and (adapter := read_adapter(folder)) is not None:
            files |= _look_at_base(adapter)
    return files


def _look_at_base(adapter: Adapter) -> dict[str, FileStamp | tuple[()]]:
    """Return the files of a base model in another folder, by path, or the commit of one on the Hub."""
    if (commit := adapter.base_commit) is not None:
        return {f"{adapter.base}@{commit}": ()}
    return {} if adapter.is_on_itself else {str(path): stamp for path, stamp in _stamps(adapter.base_folder)}


def _stamps(folder: Path, whole: bool = False) -> Iterator[tuple[Path, FileStamp]]:
    # A disk that fails tells so when the files are read.
    with suppress(OSError):
        if folder.is_file():
            yield folder, stamp_file(folder)
            return
        found = {path for pattern in (*_SMALL, *WEIGHT_FILES, *_OTHERS) for path in folder.glob(pattern)}
        for path in (path for path in folder.rglob("*") if path.is_file()) if whole else found:
            with suppress(OSError):
                yield path, stamp_file(path)


def stamp_of(folder: Path, *, whole: bool = False) -> Stamp:
    """Return the sizes and times of the files that make the model, or of all, as far as they can be read."""
    return SeenFiles(folder, _look(folder, whole)).stamp


def comparable(stamp: Mapping[str, Any]) -> Stamp:
    """Return a stamp of what is converted without the recipe and the times of change, which a copy does not keep."""
    return {name: list(seen)[:2] for name, seen in stamp.items() if not name.startswith(RECIPE)}


def stamp_sha256(stamp: Stamp) -> str:
    """Return the hash of a stamp, which takes less room."""
    return hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()


def fingerprint(folder: Path) -> Fingerprint:
    """Read a checkpoint's files, and those of an adapter's base model.

    Raises `LmsatError` for one whose weights are cut or missing.
    """
    adapter = read_adapter(folder)
    if adapter is None:
        return _of_model(folder)
    base = _of_base(adapter)
    # Where the base lies, which the adapter's configuration says, changes nothing.
    parts = [hash_weights([adapter.weights]), adapter.settings, base.weights_sha256]
    weights = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    digest = hashlib.sha256(f"{weights}\0{base.identity}".encode())
    small = {path for pattern in _SMALL for path in folder.glob(pattern) if path.name not in MODEL_CONFIGS}
    _content(digest, filter(Path.is_file, small))
    return Fingerprint(digest.hexdigest(), weights)


def _of_model(folder: Path) -> Fingerprint:
    weights = read_ahead(folder)
    digest = hashlib.sha256(weights.encode())
    hashed = _content(digest, {path for pattern in _SMALL for path in folder.glob(pattern) if path.is_file()})
    # transformers runs no other code than that which the configuration names.
    if any(path.name == "config.json" and b'"auto_map"' in content for path, content in hashed.items()):
        _content(digest, folder.glob("*.py"))
    return Fingerprint(digest.hexdigest(), weights)


def _of_base(adapter: Adapter) -> Fingerprint:
    """Return what identifies an adapter's base model: the content of a folder, or the Hub's commit."""
    if (commit := adapter.base_commit) is not None:
        named = f"{adapter.base}@{commit}"
        # It is fetched here, while another checkpoint is measured.
        _ = adapter.base_folder
        return Fingerprint(named, named)
    return content_of(adapter.base_folder)


def content_of(folder: Path) -> Fingerprint:
    """Return the fingerprint of a whole model's folder, which is read once in each process. Raises as `fingerprint`."""
    return _of_folder(folder, tuple(sorted(_stamps(folder))))


@lru_cache(maxsize=1024)
def _of_folder(folder: Path, stamps: tuple[tuple[Path, FileStamp], ...]) -> Fingerprint:
    return _of_model(folder)


def describe_base(folder: Path) -> dict[str, Any]:
    """Return what results note of the ``base`` of an adapter: its name, revision, identity, and the stamp of its files.

    Nothing for another checkpoint. Raises as `fingerprint`.
    """
    adapter = read_adapter(folder)
    if adapter is None:
        return {}
    files = {name: list(seen) for name, seen in sorted(_look_at_base(adapter).items())}
    identity = _of_base(adapter).identity
    return {"base": {"name": adapter.base, "revision": adapter.revision, "identity": identity, "files": files}}


def on_base(content: str | None, noted: Mapping[str, Any]) -> str | None:
    """Return what identifies a checkpoint of the Hub: its content, and that of the base model which results note."""
    return f"{content} on {noted['base']['identity']}" if "base" in noted else content


def is_same_base(noted: Mapping[str, Any]) -> bool:
    """Return whether the base model that results note is still the same, as far as can be told without reading it."""
    adapter = Adapter(name="", folder=Path(), config={}, base=noted.get("name"), revision=noted.get("revision"))
    with suppress(LmsatError):
        return {name: list(seen) for name, seen in _look_at_base(adapter).items()} == noted.get("files")
    return False


def _content(digest: Any, paths: Iterable[Path]) -> dict[Path, bytes]:
    """Add names and content of files to a digest. Return the content."""
    contents = {}
    for path in sorted(paths):
        try:
            contents[path] = read_file(path)
        except OSError as error:
            raise LmsatError(f"{path} cannot be read ({error.strerror}): correct its rights") from error
        digest.update(path.name.encode("utf-8", "surrogatepass") + b"\0" + contents[path])
    return contents


def known_files(stamp: Stamp, checkpoints: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return what results note of the very same files; None if they note nothing of them."""
    return next((known for known in checkpoints if known.get("files") == stamp), None)


def remembered(stamp: Stamp, checkpoints: Iterable[Mapping[str, Any]]) -> Fingerprint | None:
    """Return the fingerprint that results note of the very same files; None if there is none."""
    known = known_files(stamp, [c for c in checkpoints if c.get("identity") and c.get("weights_sha256")])
    return Fingerprint(known["identity"], known["weights_sha256"]) if known else None
