"""Where text comes from: the sample that every machine has, files, and named corpora."""

from __future__ import annotations

import ast
import functools
import json
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml
from pydantic import PositiveInt

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_SUFFIXES = (".txt", ".jsonl", ".parquet")
_SHUFFLE_BUFFER = 10_000


class CorpusSettings(Settings):
    """What text is measured; all of it can be set through ``--metadata``."""

    corpus: str = "sample"
    """``sample``, a path (.txt, .jsonl, .parquet, a folder of these), or a name of `corpora.yaml`."""
    max_tokens: PositiveInt | None = 50_000
    """Stop after so many tokens (the saturation paper's number by default); None takes all."""
    seed: int = 0
    """Which documents come first."""
    text_field: str | None = None
    """The column or key of the text, where it is not called ``text``."""


@dataclass(frozen=True)
class Corpus:
    """Documents, in the order in which their source has them."""

    name: str
    documents: tuple[str, ...]


class CorpusSource(Protocol):
    """A corpus that a plugin registers: called with the settings, it yields the documents' texts."""

    def __hash__(self) -> int:
        """Corpora are kept for the tasks of one run, by source and settings."""

    def __call__(self, settings: CorpusSettings) -> Iterable[str]:
        """Yield one string a document; raise `LmsatError` where there is nothing to be had."""


def load_corpus(settings: CorpusSettings, sources: Mapping[str, CorpusSource]) -> Corpus:
    """Return the documents that ``settings.corpus`` names. ``sources`` are the registered named corpora.

    Raises `LmsatError` for an unknown name, a missing or binary file, a missing field, no network.
    """
    if settings.corpus in sources:
        return _load_named(settings, sources[settings.corpus])
    path = Path(settings.corpus).expanduser()
    if path.exists():
        return _load_path(
            settings, tuple((p, p.stat().st_mtime_ns, p.stat().st_size) for p in _files_of(path))
        )
    known = ", ".join(sorted(sources))
    raise LmsatError(
        f"corpus={settings.corpus} is neither a file or folder here nor a known corpus ({known}): correct the name"
    )


# Tasks of one run ask for the same corpus one after another; two entries hold it, not a history of corpora.
@functools.lru_cache(maxsize=2)
def _load_named(settings: CorpusSettings, source: CorpusSource) -> Corpus:
    return Corpus(settings.corpus, tuple(source(settings)))


@functools.lru_cache(maxsize=2)
def _load_path(settings: CorpusSettings, stamps: tuple[tuple[Path, int, int], ...]) -> Corpus:
    documents = [text for path, *_ in stamps for text in _read(path, settings.text_field)]
    return Corpus(settings.corpus, tuple(documents))


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
    if not found:
        raise LmsatError(
            f"corpus={path} is a folder without {', '.join(_SUFFIXES)} files: give one that has some"
        )
    return found


def _read(path: Path, field: str | None) -> Iterator[str]:
    """Yield a file's documents: a .txt file is one, a line of .jsonl or a row of .parquet is one."""
    if path.suffix == ".parquet":
        yield from _read_parquet(path, field)
        return
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise LmsatError(
            f"corpus file {path} cannot be read ({error.strerror}): correct its path or rights"
        ) from error
    except UnicodeDecodeError as error:
        raise LmsatError(
            f"corpus file {path} is not UTF-8 text (byte {error.start}): give a text file"
        ) from error
    if "\0" in text:
        raise LmsatError(
            f"corpus file {path} is binary (a zero byte at {text.index(chr(0))}): give a text file"
        )
    if path.suffix != ".jsonl":
        yield text
        return
    # Not splitlines: JSON may hold other separators of lines than the line feed.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _field_of(_parse_line(path, number, line), field, f"line {number} of {path}")


def _parse_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise LmsatError(f"line {number} of {path} is not JSON ({error.msg}): mend or remove it") from error


def _field_of(row: Any, field: str | None, place: str) -> str:
    """Return the text of a row: of the field asked for, of ``text``, or of the only string."""
    if isinstance(row, str) and field is None:
        return row
    strings = [key for key, value in row.items() if isinstance(value, str)] if isinstance(row, dict) else []
    wanted = field or ("text" if "text" in strings else strings[0] if len(strings) == 1 else "text")
    if wanted not in strings:
        raise LmsatError(
            f"{place} has no text field '{wanted}' (its text fields: {', '.join(strings) or 'none'}): "
            "name one with text_field=NAME"
        )
    return row[wanted]


def _read_parquet(path: Path, field: str | None) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        for batch in file.iter_batches():
            for number, row in enumerate(batch.to_pylist()):
                yield _field_of(row, field, f"row {number} of {path}")
    except (pyarrow.ArrowException, OSError) as error:
        raise LmsatError(
            f"corpus file {path} is not a readable parquet file ({first_sentence(error)})"
        ) from error


def sample(settings: CorpusSettings) -> Iterator[str]:
    """Yield CPython's own documentation: its help topics, then the docstrings of each standard module.

    Every machine has this text; it differs between versions of Python, so results record its hash.
    """
    from pydoc_data.topics import topics

    yield from topics.values()
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        nodes = ast.walk(ast.parse(path.read_bytes()))
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        docstrings = (ast.get_docstring(node) for node in nodes if isinstance(node, kinds))
        yield "\n\n".join(text for text in docstrings if text)


@dataclass(frozen=True)
class HubCorpus:
    """A corpus on the Hugging Face Hub, streamed with `datasets` and shuffled through a buffer."""

    path: str
    split: str
    field: str
    name: str | None = None
    note: str = ""

    def __call__(self, settings: CorpusSettings) -> Iterator[str]:
        """Yield documents until they hold about eight characters for each token that is wanted."""
        import datasets

        try:
            stream = datasets.load_dataset(self.path, self.name, split=self.split, streaming=True)
            wanted = float("inf") if settings.max_tokens is None else 8 * settings.max_tokens
            for row in stream.shuffle(seed=settings.seed, buffer_size=_SHUFFLE_BUFFER):
                yield row[settings.text_field or self.field]
                wanted -= len(row[settings.text_field or self.field])
                if wanted < 0:
                    return
        except LmsatError:
            raise
        except Exception as error:
            raise LmsatError(
                f"corpus={settings.corpus} could not be fetched from the Hub dataset {self.path} "
                f"({first_sentence(error)}): connect to the network, or give corpus=FILE"
            ) from error


def hub_corpora() -> dict[str, HubCorpus]:
    """Return the named corpora of `corpora.yaml`."""
    entries = yaml.safe_load(files("lmsat_plugin.text").joinpath("corpora.yaml").read_text("utf-8"))
    return {name: HubCorpus(**entry) for name, entry in entries.items()}
