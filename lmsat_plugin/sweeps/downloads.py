"""Download checkpoints from the Hub, use the user's own cache, and delete what is no longer needed."""

from __future__ import annotations

import filecmp
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants

from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.files import folder_name, safe_name, user_path, write_atomically
from lmsat_plugin.hub import cached_snapshot, hub_errors
from lmsat_plugin.model.checkpoint_files import holds_config, holds_model, weight_files, weight_paths
from lmsat_plugin.passing import SERVER
from lmsat_plugin.series.checkpoint import Checkpoint
from lmsat_plugin.sweeps.config import SweepConfig
from lmsat_plugin.sweeps.kept_folders import KeptFolders, user_of
from lmsat_plugin.sweeps.listings import Content, Listings, files_to_load, local_name
from lmsat_plugin.sweeps.transfers import fetch_files, files_unlike
from lmsat_plugin.sweeps.weights import head_shards

logger = logging.getLogger(__name__)

_HEAD = ".head"
_INDEX = "model.safetensors.index.json"
_MARGIN = 1.05
_NO_INDEX = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a file that is no index of shards raises."""


class Downloads:
    """Downloaded checkpoints, ``<folder>/<repository>/<commit>``, of which only some are kept.

    Several processes may share the folder, and several checkpoints a commit. A checkpoint, identified by its model's
    name and its revision, is fetched by one process at a time. One in a folder of its repository lies in
    ``<commit>__<folder>``.

    Args:
        folder: Where to put them. What a killed process has left half written or half deleted is removed.
        keep: How many released checkpoints stay; None for all.
        trust_remote_code: Whether to download Python files too.
        listings: What is known of the files of commits.
    """

    def __init__(
        self, folder: Path, keep: int | None = 1, *, trust_remote_code: bool = False, listings: Listings | None = None
    ) -> None:
        self.folder = user_path(folder)
        self._trusts = trust_remote_code
        self._complete = ".complete-with-code" if trust_remote_code else ".complete"
        self.listings = listings or Listings()
        self._kept = KeptFolders(self.folder, keep)
        self._read: set[Path] = set()
        """The folders whose files have been read and compared."""

    def size(self, checkpoint: Checkpoint) -> int:
        """Return the bytes that would have to be downloaded to have the whole checkpoint.

        Raises `LmsatError` if the Hub cannot be asked, or refuses.
        """
        place = self._place(checkpoint)
        if checkpoint.folder is not None or _is_whole(place, self._complete) or self._cached(checkpoint) is not None:
            return 0
        return sum(_missing(place, self._needed(checkpoint)).values())

    def fetch(self, checkpoint: Checkpoint, *, head_only: bool = False) -> Path:
        """Return the folder of a checkpoint, downloaded if need be. A download that was cut off is continued.

        A checkpoint that is complete in the user's own cache is used from there. ``head_only`` leaves out the shards
        of safetensors without the LM head, or the embedding that it is tied to. Raises `LmsatError` if the disk has no
        room, the Hub refuses or cannot be reached, or there are no weights.
        """
        if checkpoint.folder is not None:
            return checkpoint.folder
        place = self._place(checkpoint)
        markers = [self._complete, _HEAD] if head_only else [self._complete]
        lock = FileLock(place.with_name(f".{place.name}.lock"))
        with self._kept.alone():
            if there := any(_is_whole(place, marker) for marker in markers):
                self._use(checkpoint)
        if there and self._is_as_stated(place, markers, lock):
            return self._loadable(checkpoint)
        if cached := self._cached(checkpoint):
            return cached
        files = self._needed(checkpoint)
        with self._kept.alone():
            self._use(checkpoint)
        with hub_errors(checkpoint.pretrained, checkpoint.revision), lock:
            wanted = self._with_head(checkpoint, files) if head_only else files
            stated = self._download(checkpoint, wanted)
            content = {name: [size, stated.get(name)] for name, size in wanted.items()}
            write_atomically(place / (self._complete if wanted == files else _HEAD), json.dumps(content).encode())
        return self._loadable(checkpoint)

    def _loadable(self, checkpoint: Checkpoint) -> Path:
        """Return the folder of a downloaded checkpoint, whole: files from above its subfolder are linked there."""
        place, subfolder = self._place(checkpoint), checkpoint.subfolder
        if subfolder is None:
            return place
        names = {name for marker in (self._complete, _HEAD) for name in _listed(place, marker)}
        for name in sorted(name for name in names if not name.startswith(f"{subfolder}/")):
            own = place / subfolder / local_name(name, subfolder)
            if own.exists() and filecmp.cmp(own, place / name, shallow=False):
                continue
            own.unlink(missing_ok=True)
            own.parent.mkdir(parents=True, exist_ok=True)
            try:
                own.hardlink_to(place / name)
            except OSError:
                shutil.copyfile(place / name, own)
        return place / subfolder

    def _is_as_stated(self, place: Path, markers: Sequence[str], lock: FileLock) -> bool:
        """Return whether complete files still have their digests; remove those that have not, and the markers.

        They are read once by each process, since files may have changed in the meantime.
        """
        if place in self._read:
            return True
        sha256 = {name: stated for marker in markers for name, (_, stated) in _listed(place, marker).items()}
        if files_unlike(place, sha256):
            with lock:
                # Another process may have found it, too, and have downloaded them again.
                for name in files_unlike(place, sha256):
                    logger.warning("%s has changed since it was downloaded: it is downloaded again", place / name)
                    (place / name).unlink(missing_ok=True)
                    _remove_markers(place)
            return False
        self._read.add(place)
        return True

    def release(self, checkpoint: Checkpoint) -> None:
        """Mark a checkpoint as no longer used, and delete all unused ones but the latest ``keep``."""
        if checkpoint.folder is None:
            self._kept.release(self._place(checkpoint), user_of(checkpoint))

    def clean(self) -> None:
        """Release what dead processes had in use, and delete all unused ones but the latest ``keep``."""
        self._kept.clean()

    def _use(self, checkpoint: Checkpoint) -> None:
        """Mark a checkpoint as used, so that no other process deletes it."""
        with hub_errors(checkpoint.pretrained, checkpoint.revision):
            self._kept.use(self._place(checkpoint), user_of(checkpoint))

    def _place(self, checkpoint: Checkpoint) -> Path:
        return self.folder / safe_name(checkpoint.pretrained) / folder_name(str(checkpoint.content))

    def _needed(self, checkpoint: Checkpoint) -> dict[str, int]:
        """Return the files of a checkpoint, by their path in the repository, and their sizes; the Hub is asked once."""
        sizes = {name: file.size for name, file in self.listings.files(checkpoint).items()}
        needed = files_to_load(sizes, checkpoint.subfolder, trust_remote_code=self._trusts)
        names = {local_name(name, checkpoint.subfolder) for name in needed}
        if not weight_files(dict.fromkeys(names, 0)):
            what = f"{checkpoint.pretrained} at {checkpoint.revision}"
            if checkpoint.subfolder is not None:
                raise LmsatError(
                    f"{what}: its folder {checkpoint.subfolder} has no weights of transformers (*.safetensors or "
                    "pytorch_model*.bin): download and convert it, or leave this revision out"
                )
            raise LmsatError(f"{what} has no weights (*.safetensors or pytorch_model*.bin): leave this revision out")
        if "config.json" not in names and "adapter_config.json" not in names and checkpoint.subfolder is not None:
            raise LmsatError(
                f"{checkpoint.pretrained} at {checkpoint.revision}: neither its folder {checkpoint.subfolder} nor one "
                "above has a config.json: download and convert it, or leave this revision out"
            )
        return needed

    @property
    def cannot_ask(self) -> bool:
        """Whether the Hub is not to be asked."""
        return bool(constants.HF_HUB_OFFLINE)

    def content(self, checkpoint: Checkpoint) -> Content | None:
        """Return what two checkpoints of equal files have in common; None if it is not known without asking."""
        return self.listings.content(checkpoint, trust_remote_code=self._trusts)

    def _digests(self, checkpoint: Checkpoint) -> dict[str, str | None]:
        return {name: file.digest for name, file in self.listings.files(checkpoint).items()}

    def _cached(self, checkpoint: Checkpoint) -> Path | None:
        offline, subfolder = constants.HF_HUB_OFFLINE, checkpoint.subfolder
        above = f"{subfolder}/" if subfolder else ""
        names = {} if offline else self._needed(checkpoint)
        snapshot = cached_snapshot(checkpoint.pretrained, str(checkpoint.commit), names)
        if snapshot is None or not all(name.startswith(above) for name in names):
            return None
        folder = snapshot / above
        # In a folder, transformers puts an adapter on the model beside it.
        if not holds_config(folder) or ((folder / "adapter_config.json").is_file() and holds_model(folder)):
            return None
        if offline:
            # The Hub cannot be asked which files are needed: complete weights have to do.
            try:
                weight_paths(folder)
            except LmsatError:
                return None
        elif folder not in self._read:
            hashes = self._digests(checkpoint)
            if _missing(snapshot, names) or files_unlike(snapshot, {name: hashes.get(name) for name in names}):
                logger.warning("%s is not what the Hub has of %s: it is downloaded", folder, checkpoint.pretrained)
                return None
            self._read.add(folder)
        return folder

    def _with_head(self, checkpoint: Checkpoint, files: dict[str, int]) -> dict[str, int]:
        """Return all files but the shards without the head; all files where the head is not found."""
        above = f"{checkpoint.subfolder}/" if checkpoint.subfolder else ""
        own = {name.removeprefix(above): size for name, size in files.items() if name.startswith(above)}
        if _INDEX not in own:
            return files
        shards = weight_files(own).keys() - {_INDEX}
        paths = {above + shard for shard in shards}
        self._download(checkpoint, {name: size for name, size in files.items() if name not in paths})
        head = None
        with suppress(*_NO_INDEX):
            index = (self._place(checkpoint) / above / _INDEX).read_text("utf-8")
            head = head_shards(json.loads(index)["weight_map"])
        if not head or not head <= shards:
            return files
        return {name: size for name, size in files.items() if name not in paths - {above + shard for shard in head}}

    def _download(self, checkpoint: Checkpoint, files: Mapping[str, int]) -> dict[str, str | None]:
        """Fetch those of the files that are missing; return the digests that the Hub states."""
        place, repository = self._place(checkpoint), checkpoint.pretrained
        missing = _missing(place, files)
        if not missing:
            return {} if place in self._read else self._compared(checkpoint, files)
        _remove_markers(place)
        self._read.discard(place)
        needed, free = sum(missing.values()) * _MARGIN, shutil.disk_usage(self.folder).free
        if needed > free:
            raise PassingError(
                f"{repository} at {checkpoint.revision} needs {needed / 1e9:.2f} GB, but {self.folder} has "
                f"{free / 1e9:.2f} GB free: free space, keep fewer checkpoints, or choose another folder",
                source="the disk",
            )
        for name in missing:
            # A file of the wrong size would be taken for a complete download.
            (place / name).unlink(missing_ok=True)
        # A killed process leaves such files, under names that are used once.
        for stray in (place / ".cache" / "huggingface" / "download").rglob("*.*.*.incomplete"):
            stray.unlink(missing_ok=True)
        fetch_files(repository, str(checkpoint.commit), place, missing)
        # Without the Hub, huggingface_hub accepts whatever is in the folder.
        if still := _missing(place, files):
            raise PassingError(
                f"{repository} at {checkpoint.revision}: {min(still)} did not arrive: "
                "check the connection and start again, which continues",
                source=SERVER,
            )
        return self._compared(checkpoint, files)

    def _compared(self, checkpoint: Checkpoint, files: Mapping[str, int]) -> dict[str, str | None]:
        """Return the digests that the Hub states, which the files have. Raises `LmsatError` for a file of another."""
        place = self._place(checkpoint)
        hashes = self._digests(checkpoint)
        wanted = {name: hashes.get(name) for name in files}
        if unlike := files_unlike(place, wanted):
            # It may come from the user's own cache, where huggingface_hub looks first.
            logger.warning("%s did not arrive as it is on the Hub: once more", place / unlike[0])
            again = {name: files[name] for name in unlike}
            for name in unlike:
                (place / name).unlink(missing_ok=True)
            fetch_files(checkpoint.pretrained, str(checkpoint.commit), place, again, force=True)
        if unlike := files_unlike(place, {name: wanted[name] for name in unlike}):
            for name in unlike:
                (place / name).unlink(missing_ok=True)
            raise PassingError(
                f"{checkpoint.pretrained} at {checkpoint.revision}: {min(unlike)} did not arrive as it is on the Hub "
                "(its digest is another) and is removed: start again, which downloads it again",
                source=SERVER,
            )
        return hashes


def _listed(place: Path, marker: str) -> dict[str, tuple[int, str | None]]:
    """Return size and digest of each file that was complete; nothing for a marker of earlier versions."""
    with suppress(*_NO_INDEX):
        files = json.loads((place / marker).read_bytes())
        return {str(name): (int(size), stated) for name, (size, stated) in files.items()}
    return {}


def _is_whole(place: Path, marker: str) -> bool:
    """Return whether all files are there, in their sizes, that were there when the marker was written."""
    if not (place / marker).exists():
        return False
    if listed := _listed(place, marker):
        return not _missing(place, {name: size for name, (size, _) in listed.items()})
    with suppress(LmsatError):
        return bool(weight_paths(place))
    # Of a head alone, earlier versions wrote some shards of several.
    return marker == _HEAD


def _remove_markers(place: Path) -> None:
    for path in (*place.glob(".complete*"), place / _HEAD):
        path.unlink(missing_ok=True)


def _missing(place: Path, files: Mapping[str, int]) -> dict[str, int]:
    """Return the files that are missing, or not of their full size."""

    def size_of(name: str) -> int:
        try:
            return (place / name).stat().st_size
        except OSError:
            return -1

    return {name: size for name, size in files.items() if size_of(name) != size}


def make_downloads(config: SweepConfig, folder: Path) -> Downloads:
    """Return the downloads of a sweep, in the folder of what is its own."""
    args = [config.model_args, *(entry.model_args for entry in config.models)]
    return Downloads(
        folder / "downloads",
        config.kept,
        trust_remote_code=any(each.get("trust_remote_code") for each in args),
        listings=Listings(folder / "listings"),
    )
