"""How the checkpoints of a series are converted: what a configuration says of it, what identifies it, and its steps."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lmsat_plugin.conversion.commands import Converter, words_of
from lmsat_plugin.conversion.folder import config_files, config_folder, convert, copy_config, making
from lmsat_plugin.conversion.names import Rename
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import kind_of, user_path
from lmsat_plugin.model.checkpoint_files import check_checkpoint_folder, check_format, holds_config, holds_weights


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How checkpoints in a training format become folders that transformers reads.

    Raises `LmsatError` for a command that cannot be run, see `words_of`, and for patterns that are none.
    """

    config: str | None = None
    """A folder or a name on the Hub, with the model's config.json and its tokenizer."""
    rename: Rename = ()
    command: str | None = None
    timeout: float = 3600.0
    """The seconds that a command may take."""
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for pattern, text in self.rename:
            try:
                # It matches, so that references to groups are looked at.
                re.compile(f"{pattern}|").sub(text, "")
            except (re.error, IndexError) as error:
                raise LmsatError(f"rename: '{pattern}' with '{text}' is no replacement ({error}): correct it") from None
        words_of(self.command)

    @cached_property
    def digest(self) -> str:
        """What identifies the conversion: another one may give other weights. Files that it names count by content."""
        digest = hashlib.sha256(json.dumps([self.config, [*map(list, self.rename)], self.command]).encode())
        files = [path for word in words_of(self.command) if kind_of(path := Path(word)) == "file"]
        if self.config is not None and kind_of(folder := user_path(self.config)) == "folder":
            files += config_files(folder)
        for path in files:
            digest.update(path.name.encode("utf-8", "surrogatepass"))
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Return what results note of it."""
        said = {"convert": self.command, "config": self.config, "rename": [*map(list, self.rename)]}
        return {key: value for key, value in said.items() if value}

    def make(self, source: Path, out: Path, *, scratch: Path, log: Path, converter: Converter) -> dict[str, Any]:
        """Write a checkpoint to a new folder, ``out``, that is there whole or not at all; return what to note of it.

        A command writes to the folder ``scratch``, which is removed, and what it prints goes to ``log``. Raises
        `LmsatError` where the command fails, or the checkpoint cannot be converted.
        """
        if self.command is None:
            return self.convert(source, out)
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            scratch.mkdir(parents=True)
            written = scratch / "output"
            converter.run(self.command, source, written, log=log, seconds=self.timeout)
            if self.config is not None and not holds_weights(written):
                return self.convert(written, out)
            self._take(written, out, log)
            return {}
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def convert(self, source: Path, out: Path) -> dict[str, Any]:
        """Write a checkpoint in torch's own formats as `make` does."""
        if holds_config(source) and holds_weights(source):
            raise LmsatError(f"{source} is in transformers' format already: use it as it is")
        if self.config is None:
            check_format(source)
            raise LmsatError(f"{source} is in no format that transformers reads: set `config` or `convert`")
        config = config_folder(self.config)
        return convert(source, out, config=config, rename=self.rename, trust_remote_code=self.trust_remote_code)

    def _take(self, written: Path, out: Path, log: Path) -> None:
        """Move what a command has written, with a configuration and a tokenizer from `config` where it has none."""
        with making(out) as folder:
            if self.config is not None:
                copy_config(config_folder(self.config), written)
            try:
                check_checkpoint_folder(str(written))
            except LmsatError as error:
                raise LmsatError(
                    f"convert: {self.command} wrote no checkpoint of transformers ({error}); "
                    f"what it printed is in {log}"
                ) from error
            for path in written.iterdir():
                path.rename(folder / path.name)
