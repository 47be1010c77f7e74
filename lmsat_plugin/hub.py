"""What the Hub holds, what of it is in the user's own cache, and the Hub's refusals, of which some pass."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, constants, errors, get_token, try_to_load_from_cache
from huggingface_hub.hf_api import RepoFile

from lmsat_plugin.errors import LmsatError, PassingError, first_sentence
from lmsat_plugin.files import similar_path
from lmsat_plugin.passing import SERVER, passing

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


class HubFile(NamedTuple):
    """What the Hub states of a file."""

    size: int
    """In bytes."""
    digest: str | None
    """The SHA-256 of a large file, git's of another."""


class HubCommit(NamedTuple):
    """A commit of a branch."""

    commit: str
    title: str


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
        raise _UnclearError(sentence, source=SERVER) from error


def _sentence(error: BaseException, repository: str, revision: str | None) -> str:
    """Return what is wrong and what to do, for any error of the Hub."""
    what, error = f"{repository} at {revision}" if revision else repository, _cause(error)
    token = _token_in_use()
    if isinstance(error, errors.GatedRepoError):
        terms = f"accept the terms at https://huggingface.co/{repository}"
        if token:
            return f"{repository} is gated, and {token} has no access: {terms} with the account of the token"
        return f"{repository} is gated: {terms}, then `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        correct = f"correct the name{_meant(repository)}"
        if token:
            closed = f"it is private and {token} may not read it: {correct}, or use a token that may"
        else:
            closed = f"it is private: {correct}, or `hf auth login`"
        return f"the Hub has no {repository}, or {closed}{_mirror()}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {revision}: `lmsat checkpoints {repository}` lists them{_mirror()}"
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
        rights = f"{token} is not valid or has no right to read it: use one that has" if token else ""
        rights = rights or "`hf auth login` with a token that may read it"
        return f"the Hub refuses {what} (HTTP {status}): {rights}{_mirror()}"
    if status == 429:
        advice = "wait a few minutes" if token else "wait a few minutes, or `hf auth login`"
        return f"the Hub refuses {what} (HTTP 429, too many requests): {advice}{_mirror()}"
    if isinstance(error, (*_NOT_THE_HUB, json.JSONDecodeError)):
        return (
            f"what answers at {constants.ENDPOINT} for {what} is not the Hub: open it in a browser, in case the "
            "network asks for a login, or set HF_HUB_OFFLINE=1 to use what is cached"
        )
    if status is not None:
        return f"the Hub answers HTTP {status} for {what}: try again later, or choose another revision{_mirror()}"
    return (
        f"{what} cannot be had from the Hub ({first_sentence(error)}): check the connection, "
        f"set HF_HUB_OFFLINE=1 to use what is cached, or give a folder{_meant(repository)}{_mirror()}"
    )


def _token_in_use() -> str | None:
    """Return what to call the token that requests are made with; None without one."""
    if os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return "the token in HF_TOKEN"
    return "the token of `hf auth login`" if get_token() else None


def _mirror() -> str:
    """Return the end of a sentence that names the server, where it is not the Hub's own."""
    return "" if constants.ENDPOINT == "https://huggingface.co" else f" (HF_ENDPOINT={constants.ENDPOINT})"


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


def list_repositories(organisation: str, letters: str) -> list[str]:
    """Return the names of an organisation's models that have some letters in them, by one request or a few pages.

    In offline mode those in the cache. Raises as `list_refs`.
    """
    with hub_errors(organisation):
        if constants.HF_HUB_OFFLINE:
            folders = Path(constants.HF_HUB_CACHE).glob(f"models--{organisation}--*")
            return [folder.name.removeprefix("models--").replace("--", "/", 1) for folder in folders]
        return [model.id for model in HfApi().list_models(author=organisation, search=letters or None)]


def list_commits(repository: str, branch: str) -> list[HubCommit]:
    """Return the commits of a branch, the newest first, by a request for each page. Raises as `list_refs`."""
    with hub_errors(repository, branch):
        return [
            HubCommit(each.commit_id, each.title) for each in HfApi().list_repo_commits(repository, revision=branch)
        ]


def list_files(repository: str, commit: str, revision: str | None = None) -> Mapping[str, HubFile]:
    """Return what the Hub states of each file of a commit, by one request. Raises as `list_refs`.

    ``revision`` is what people call the commit.
    """
    with hub_errors(repository, revision or commit):
        return _trees.get((repository, commit)) or _files(repository, commit)


def list_tree(repository: str, commit: str, revision: str | None = None) -> Mapping[str, HubFile]:
    """Return what `list_files` returns of a commit that may hold thousands of files, by a request for each page.

    Raises as `list_refs`.
    """
    with hub_errors(repository, revision or commit):
        if (tree := _trees.get((repository, commit))) is None:
            try:
                entries = HfApi().list_repo_tree(repository, revision=commit, recursive=True)
                tree = {entry.path: _stated(entry) for entry in entries if isinstance(entry, RepoFile)}
            except (errors.HfHubHTTPError, TypeError, KeyError) as error:
                if _status(error) not in (None, 404, 405):
                    raise
                # A mirror need not know that request.
                tree = _files(repository, commit)
            _trees[repository, commit] = tree
        return tree


_trees: dict[tuple[str, str], Mapping[str, HubFile]] = {}


@lru_cache(maxsize=256)
def _files(repository: str, commit: str) -> Mapping[str, HubFile]:
    """Return what the Hub says of the files of a commit, which never changes, by one request."""
    siblings = HfApi().model_info(repository, revision=commit, files_metadata=True).siblings or ()
    return {file.rfilename: _stated(file) for file in siblings}


def _stated(file: Any) -> HubFile:
    # Of a large file git knows a pointer.
    return HubFile(file.size or 0, (file.lfs.sha256 if file.lfs else file.blob_id) or None)


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
