"""What the Hub holds, what of it is in the user's own cache, and the Hub's refusals, of which some pass."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from huggingface_hub import HfApi, constants, errors, try_to_load_from_cache
from huggingface_hub.hf_api import RepoSibling

from lmsat_plugin.errors import LmsatError, PassingError, first_sentence
from lmsat_plugin.files import similar_path
from lmsat_plugin.passing import passing

# What comes of an answer without the Hub's keys or headers, such as the page of a network that asks for a login.
_NOT_THE_HUB = (KeyError, TypeError, AttributeError, RecursionError, errors.FileMetadataError)
# What huggingface_hub, its HTTP library and hf_xet raise: the latter plain RuntimeErrors too.
_HUB_ERRORS: tuple[type[BaseException], ...] = (
    errors.HfHubHTTPError.__bases__[0],  # of the HTTP library, which is another from version to version
    getattr(errors, "XetDownloadError", OSError),
    *(OSError, ValueError, RuntimeError),
    *_NOT_THE_HUB,
)
# What the Hub says for good.
_REFUSALS = (
    *(errors.GatedRepoError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError),
    *(errors.HFValidationError, errors.OfflineModeIsEnabled),
)


class _UnclearError(PassingError):
    """No answer of the Hub that says no: something else answered, half of a file came, or it cannot be saved."""

    tries = 3


@contextmanager
def hub_errors(repository: str, revision: str | None = None) -> Iterator[None]:
    """Turn what huggingface_hub raises into `LmsatError`: into `PassingError` where another try may do better."""
    try:
        yield
    except _HUB_ERRORS as error:
        sentence, cause = _sentence(error, repository, revision), _cause(error)
        if (passes := passing(error)) is not None:
            raise PassingError(sentence, source=passes.source, retry_after=passes.retry_after) from error
        refused = isinstance(cause, _REFUSALS) and not isinstance(cause, errors.LocalEntryNotFoundError)
        if refused or constants.HF_HUB_OFFLINE or _status(cause) is not None:
            raise LmsatError(sentence) from error
        raise _UnclearError(sentence, source="the server") from error


def _sentence(error: BaseException, repository: str, revision: str | None) -> str:
    """Return what is wrong and what to do, for any error of the Hub."""
    what, error = f"{repository} at {revision}" if revision else repository, _cause(error)
    if isinstance(error, errors.GatedRepoError):
        return f"{repository} is gated: accept the terms at https://huggingface.co/{repository}, then `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"the Hub has no {repository}, or it is private: correct the name{_meant(repository)}, or `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {revision}: `lmsat checkpoints {repository}` lists them"
    if isinstance(error, errors.HFValidationError):
        return f"pretrained={repository} is no folder here and no name of the Hub: correct it{_meant(repository)}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return (
            f"{what} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE=1 forbids to ask the Hub: "
            f"unset it, or give a folder{_meant(repository)}"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left for {what}: free space, or choose another folder"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{what} cannot be saved as {error.filename} ({error.strerror}): choose another folder"
    status = _status(error)
    if status in (401, 403):
        return f"the Hub refuses {what} (HTTP {status}): `hf auth login` with a token that may read it"
    if status == 429:
        return f"the Hub refuses {what} (HTTP 429, too many requests): wait a few minutes, or `hf auth login`"
    if isinstance(error, (*_NOT_THE_HUB, json.JSONDecodeError)):
        return (
            f"what answers at {constants.ENDPOINT} for {what} is not the Hub: open it in a browser, in case the "
            "network asks for a login, or set HF_HUB_OFFLINE=1 to use what is cached"
        )
    if status is not None:
        return f"the Hub answers HTTP {status} for {what}: try again later, or choose another revision"
    return (
        f"{what} cannot be had from the Hub ({first_sentence(error)}): check the connection, "
        f"set HF_HUB_OFFLINE=1 to use what is cached, or give a folder{_meant(repository)}"
    )


def _meant(repository: str) -> str:
    """Return the question whether a folder was meant, where one has a similar name."""
    meant = similar_path(Path(repository))
    return f" (did you mean the folder {meant}?)" if meant is not None else ""


def _cause(error: BaseException) -> BaseException:
    """Return what huggingface_hub did not find a file for."""
    while isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def list_refs(repository: str) -> dict[str, str]:
    """Return a repository's branches and tags with their commits; in offline mode, those in the cache.

    Raises `LmsatError` if the repository is not there, is closed to the user, or cannot be asked for.
    """
    with hub_errors(repository):
        if constants.HF_HUB_OFFLINE and (cached := _cached_refs(repository)):
            return cached
        refs = HfApi().list_repo_refs(repository)
        return {ref.name: ref.target_commit for ref in (*refs.tags, *refs.branches)}


def file_sizes(repository: str, commit: str, revision: str | None = None) -> dict[str, int]:
    """Return the files of a commit and their sizes in bytes, by one request. Raises as `list_refs`.

    ``revision`` is what people call the commit.
    """
    with hub_errors(repository, revision or commit):
        return {file.rfilename: file.size or 0 for file in _files(repository, commit)}


def file_hashes(repository: str, commit: str, revision: str | None = None) -> dict[str, str]:
    """Return the digest that the Hub states of each file of a commit: the SHA-256 of large files, git's of the others.

    Raises as `list_refs`.
    """
    with hub_errors(repository, revision or commit):
        # Of a large file git knows a pointer.
        stated = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in _files(repository, commit)}
        return {name: digest for name, digest in stated.items() if digest}


@lru_cache(maxsize=256)
def _files(repository: str, commit: str) -> tuple[RepoSibling, ...]:
    """Return what the Hub says of the files of a commit, which never changes, by one request."""
    return tuple(HfApi().model_info(repository, revision=commit, files_metadata=True).siblings or ())


def cached_snapshot(repository: str, commit: str, names: Iterable[str]) -> Path | None:
    """Return the folder of the user's cache that holds these files of a commit; None if it does not."""
    folder = _cache(repository) / "snapshots" / commit
    if not folder.is_dir():
        return None
    paths = (try_to_load_from_cache(repository, name, revision=commit) for name in names)
    return folder if all(isinstance(path, str) for path in paths) else None


def _cached_refs(repository: str) -> dict[str, str]:
    cache = _cache(repository)
    refs = {}
    for path in sorted((cache / "refs").rglob("*")):
        name, commit = path.relative_to(cache / "refs").as_posix(), ""
        if path.is_file() and not name.startswith("refs/"):
            commit = path.read_text("utf-8").strip()
        if commit and (cache / "snapshots" / commit).is_dir():
            refs[name] = commit
    return refs


def _cache(repository: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / "--".join(["models", *repository.split("/")])
