"""What ``prefix=auto`` is for a checkpoint, by its tokenizer, and where identities say how the prefix token stands."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lmsat_plugin.files import kind_of, user_path
from lmsat_plugin.model.adapters import tokenizer_folder
from lmsat_plugin.model.checkpoint_files import tokenizer_digest
from lmsat_plugin.sweeps.jobs import Job
from lmsat_plugin.text.tokenization import resolve_prefix, tokenizer_hash

_OF_TOKENIZER = {"use_fast_tokenizer": "use_fast", "subfolder": "subfolder", "add_bos_token": "add_bos_token"}
"""Model arguments that lm-eval gives the tokenizer, and what transformers calls them."""
_POLICIES: dict[tuple[str, ...], str] = {}
"""What ``auto`` is for the tokenizers that were seen, by what identifies them."""


def with_prefix(identity: Mapping[str, Any], policy: str) -> dict[str, Any]:
    """Return the identity of a result with a policy. One without is of ``document``, as all were once."""
    text = {key: value for key, value in identity["corpus"].items() if key != "prefix"}
    return {**identity, "corpus": text if policy == "document" else {**text, "prefix": policy}}


def auto_prefix(job: Job, folder: Path | None, hashes: Collection[str] = ()) -> str | None:
    """Return ``window`` or ``document``: what ``auto`` is for a checkpoint; None if its tokenizer does not load.

    ``folder`` holds the checkpoint's files; without one they are the Hub's. ``hashes`` are those of the tokenizers that
    its results note: if all are known to be of the same source and the same policy, none is loaded.
    """
    args, checkpoint = job.model_args, job.checkpoint
    options = {name: args[key] for key, name in _OF_TOKENIZER.items() if args.get(key) is not None}
    if folder is None and checkpoint.subfolder is not None and args.get("tokenizer") is None:
        options["subfolder"] = checkpoint.subfolder
    options["trust_remote_code"] = bool(args.get("trust_remote_code"))
    text = json.dumps(options, sort_keys=True)
    source, revision = checkpoint.pretrained, checkpoint.commit
    if (named := args.get("tokenizer")) is not None:
        source, revision = str(named), None
        folder = path if kind_of(path := user_path(source)) == "folder" else None
    try:
        if folder is not None:
            # Of equal tokenizers in many folders only the first is loaded.
            folder = tokenizer_folder(folder)
            source, revision = str(folder), None
            key: tuple[str, ...] = ("files", tokenizer_digest(folder), text)
        else:
            key = ("name", source, revision or "", text)
            known = {_POLICIES.get(("hash", source, digest, text)) for digest in hashes}
            if len(known) == 1 and (policy := known.pop()) is not None:
                return policy
        if key not in _POLICIES:
            tokenizer = _load(source, revision, options)
            _POLICIES[key] = policy = resolve_prefix("auto", tokenizer)
            _POLICIES["hash", source, tokenizer_hash(tokenizer), text] = policy
        return _POLICIES[key]
    except Exception:
        # Loading the model will say what is wrong.
        return None


def _load(source: str, revision: str | None, options: Mapping[str, Any]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source, revision=revision or "main", **options)
