"""The digest in a result file: how a sweep puts it in, and how a reader tells that the file is still as it was written.

``config.lmsat.file_sha256`` is the SHA-256 of the file's bytes, with 64 zeros in its own place. Older sweeps wrote
``config.lmsat.sha256``, which is that of the content: of the JSON without this key, its keys sorted.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmsat_plugin.results.json_values import as_dict

DIGESTS = ("file_sha256", "sha256")
"""The keys of digests in lmsat's notes: of the bytes, and of the content."""
_OF_BYTES, _OF_CONTENT = DIGESTS
_BLANK = b"0" * 64
PRIVATE = ".lmsat"
"""A sweep's own folder within its output folder."""


def with_digest(document: dict[str, Any]) -> bytes:
    """Return the bytes of a result file, with its digest among lmsat's notes."""
    # Nothing else in the file is the same text.
    place = secrets.token_hex(32)
    document["config"]["lmsat"][_OF_BYTES] = place
    data = json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(data.replace(place.encode(), _BLANK)).hexdigest()
    document["config"]["lmsat"][_OF_BYTES] = digest
    return data.replace(place.encode(), digest.encode())


def fault_of(path: Path, data: bytes, document: dict[str, Any]) -> str | None:
    """Return why a result file is not to be believed; None if it holds its digest, or needs none.

    Files in the folder of a sweep need one, and any file that says that a sweep has written it. ``document`` is the
    content of ``data``, the file's bytes. Raises RecursionError for content that is nested too deeply.
    """
    notes = as_dict(document.get("config")).get("lmsat")
    own = as_dict(notes)
    if _OF_BYTES in own:
        stated = own[_OF_BYTES]
        if isinstance(stated, str) and re.fullmatch("[0-9a-f]{64}", stated) and _digest_around(data, stated) == stated:
            return None
    elif _OF_CONTENT in own:
        if own[_OF_CONTENT] == _digest_of_content(document):
            return None
    elif f'"{_OF_BYTES}"'.encode() not in data:
        return "it lies in a sweep's folder and has no digest" if _is_of_sweep(path, own) else None
    return "its digest does not hold: it was changed after it was written"


def _digest_around(data: bytes, stated: str) -> str | None:
    """Return the digest of a file's bytes with zeros in the place of the one stated; None if that is there twice."""
    before, found, after = data.partition(stated.encode())
    if not found or stated.encode() in after:
        return None
    digest = hashlib.sha256(before)
    digest.update(_BLANK)
    digest.update(after)
    return digest.hexdigest()


def _digest_of_content(document: dict[str, Any]) -> str:
    config = document["config"]
    notes = {key: value for key, value in config["lmsat"].items() if key != _OF_CONTENT}
    content = {**document, "config": {**config, "lmsat": notes}}
    return sha256_of_content(content, ensure_ascii=False)


def sha256_of_content(content: Mapping[str, Any], *, ensure_ascii: bool = True) -> str:
    """Return the SHA-256 of a JSON file's content, its keys sorted, whatever the file's layout."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=ensure_ascii)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _is_of_sweep(path: Path, notes: dict[str, Any]) -> bool:
    """Return whether a sweep has written a file, or keeps its results where the file is.

    Where the sweep's own folder was left behind, the notes in the file tell.
    """
    return "identities" in notes or is_sweeps_folder(path.parent)


def is_sweeps_folder(folder: Path) -> bool:
    """Return whether a sweep keeps a checkpoint's results in a folder: it has one of its own two above."""
    return (folder / ".." / ".." / PRIVATE).is_dir()
