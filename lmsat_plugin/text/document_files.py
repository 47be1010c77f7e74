"""Documents read from files: which formats a folder's files may have, and how each is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import kind_of, read_file

SUFFIXES = (".txt", ".jsonl", ".parquet")


def find_document_files(path: Path) -> list[Path]:
    """Return a file itself, or all text files below a folder, sorted. Raises `LmsatError` if the folder has none."""
    kind = kind_of(path)
    if kind == "file":
        return [path]
    if kind == "device":
        raise LmsatError(f"corpus={path} is a device, not a file: give a file or a folder")
    files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    if not files:
        raise LmsatError(f"corpus={path} is a folder without {', '.join(SUFFIXES)} files: give one that has some")
    return files


def read_documents(path: Path, field: str | None) -> Iterator[str]:
    """Yield a file's documents: a .txt file is one, and so is each line of .jsonl and each row of .parquet.

    ``field`` names the column or key of the text; by default it is ``text``, or the only string of a row.

    Raises `LmsatError` for a file that cannot be read or is not text, and for a row without the field.
    """
    if path.suffix == ".parquet":
        yield from _read_parquet(path, field)
        return
    text = _read_text(path)
    if path.suffix != ".jsonl":
        yield text
        return
    # Not splitlines: inside JSON strings other line separators than the line feed may stand unescaped.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"line {number} of {path}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else first_sentence(error)
                raise LmsatError(f"{place} is not JSON ({reason}): correct or remove it") from error
            yield _field_of(row, field, place)


def _read_text(path: Path) -> str:
    try:
        text = read_file(path).decode("utf-8")
    except OSError as error:
        raise LmsatError(f"corpus file {path} cannot be read ({error.strerror}): correct its path or rights") from error
    except UnicodeDecodeError as error:
        raise LmsatError(f"corpus file {path} is not UTF-8 text (byte {error.start}): give a text file") from error
    if "\0" in text:
        raise LmsatError(f"corpus file {path} is binary (a zero byte at {text.index(chr(0))}): give a text file")
    return text


def _field_of(row: Any, field: str | None, place: str) -> str:
    """Return the text of a row: of the given field, of ``text``, or of the only string."""
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
        raise LmsatError(f"corpus file {path} is not a readable parquet file ({first_sentence(error)})") from error
