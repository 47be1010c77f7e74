"""Corpora by name or path: the built-in sample, files, and datasets on the Hub."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, Protocol

import yaml
from pydantic import PositiveInt

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import FileStamp, kind_of, stamp_file, user_path
from lmsat_plugin.plugin_code import contained
from lmsat_plugin.settings import Settings
from lmsat_plugin.text.document_files import find_document_files, read_documents
from lmsat_plugin.text.sample import sample_documents

PrefixPolicy = Literal["auto", "window", "document"]
"""Where the prefix token stands; ``auto`` is ``window`` for tokenizers that prepend BOS, else ``document``."""


class CorpusSettings(Settings):
    """Which text is measured; each setting can be given through ``--metadata``."""

    corpus: str = "sample"
    """``sample``, a path (.txt, .jsonl, .parquet, a folder of these), or a name of `corpora.yaml`."""
    max_tokens: PositiveInt | None = 50_000
    """Stop after so many tokens (the saturation paper's number by default); None takes all."""
    seed: int = 0
    """Which documents come first."""
    text_field: str | None = None
    """The column or key of the text, where it is not called ``text``."""
    prefix: PrefixPolicy = "auto"
    """Where the prefix token stands: before every ``window``, or before each ``document`` alone; ``auto`` is ``window``
    where the tokenizer prepends BOS."""

    @property
    def text(self) -> CorpusSettings:
        """The same text, whatever its windows begin with: equal for equal texts."""
        return self.model_copy(update={"prefix": "auto"})


@dataclass(frozen=True)
class Corpus:
    """Documents, in the order of their source."""

    name: str
    documents: tuple[str, ...]


class CorpusSource(Protocol):
    """A corpus that a plugin registers: called with the settings, it yields the documents' texts."""

    def __hash__(self) -> int:
        """Make sources usable as cache keys: the tasks of one run share a corpus."""

    def __call__(self, settings: CorpusSettings) -> Iterable[str]:
        """Yield one string per document. Raises `LmsatError` if the text cannot be loaded."""


def load_corpus(settings: CorpusSettings, sources: Mapping[str, CorpusSource]) -> Corpus:
    """Return the documents of ``settings.corpus``. ``sources`` are the registered named corpora.

    Raises `LmsatError` for an unknown name, a missing or binary file, a missing field, and without a network.
    """
    settings = settings.text
    if settings.corpus in sources:
        return _load_named(settings, sources[settings.corpus])
    if stamps := corpus_files(settings, sources):
        return _load_path(settings, stamps)
    known = ", ".join(sorted(sources))
    raise LmsatError(
        f"corpus={settings.corpus} is neither a file or folder here nor a known corpus ({known}): correct the name"
    )


def corpus_files(settings: CorpusSettings, sources: Mapping[str, CorpusSource]) -> tuple[tuple[Path, FileStamp], ...]:
    """Return the files of a corpus that is a path, each with its size and the times of its changes.

    Raises `LmsatError` for a folder without text.
    """
    path = user_path(settings.corpus)
    if settings.corpus in sources or kind_of(path) is None:
        return ()
    return tuple((file, stamp_file(file)) for file in find_document_files(path))


# The tasks of one run ask for the same corpus one after another: two entries are enough, and hold little memory.
@functools.lru_cache(maxsize=2)
def _load_named(settings: CorpusSettings, source: CorpusSource) -> Corpus:
    subject = f"the corpus '{settings.corpus}'"
    try:
        with contained(subject):
            documents = tuple(source(settings))
    except LmsatError:
        raise
    except Exception as error:
        raise LmsatError(
            f"{subject} cannot be loaded ({type(error).__name__}: {first_sentence(error)}): "
            "mend its plugin, or choose another corpus"
        ) from error
    if wrong := [document for document in documents if not isinstance(document, str)]:
        raise LmsatError(
            f"{subject} holds a {type(wrong[0]).__name__} where a document's text belongs: mend its plugin"
        )
    return Corpus(settings.corpus, documents)


@functools.lru_cache(maxsize=2)
def _load_path(settings: CorpusSettings, stamps: tuple[tuple[Path, FileStamp], ...]) -> Corpus:
    documents = [text for path, *_ in stamps for text in read_documents(path, settings.text_field)]
    return Corpus(settings.corpus, tuple(documents))


def sample(settings: CorpusSettings) -> Iterator[str]:
    """Yield CPython's own documentation: its help topics, then the docstrings of each standard module.

    Every machine has this text. It differs between versions of Python, so results record its hash.
    """
    yield from sample_documents()


@dataclass(frozen=True)
class HubCorpus:
    """A corpus on the Hugging Face Hub, streamed with `datasets` and shuffled through a buffer."""

    path: str
    split: str
    field: str
    name: str | None = None
    note: str = ""

    def __call__(self, settings: CorpusSettings) -> Iterator[str]:
        """Yield documents until they hold about eight characters for each wanted token."""
        import datasets

        field = settings.text_field or self.field
        try:
            stream = datasets.load_dataset(self.path, self.name, split=self.split, streaming=True)
            wanted = float("inf") if settings.max_tokens is None else 8 * settings.max_tokens
            for row in stream.shuffle(seed=settings.seed, buffer_size=10_000):
                yield row[field]
                wanted -= len(row[field])
                if wanted < 0:
                    return
        except Exception as error:
            raise LmsatError(
                f"corpus={settings.corpus} could not be fetched from the Hub dataset {self.path} "
                f"({first_sentence(error)}): connect to the network, or give corpus=FILE"
            ) from error


def hub_corpora() -> dict[str, HubCorpus]:
    """Return the named corpora of `corpora.yaml`."""
    entries = yaml.safe_load(files("lmsat_plugin.text").joinpath("corpora.yaml").read_text("utf-8"))
    return {name: HubCorpus(**entry) for name, entry in entries.items()}
