"""The n-gram dimension as plain data, and of several corpora under several tokenizers: a file for each pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import Field, PositiveInt

from lmsat_plugin.corpora import CorpusSettings
from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import check_writable, safe_name, write_atomically
from lmsat_plugin.ngrams.corpus import measure_corpus
from lmsat_plugin.ngrams.measurement import NgramSettings
from lmsat_plugin.settings import Settings, parse_settings
from lmsat_plugin.sweep.config import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmsat_plugin.ngrams.counting import NgramCounts
    from lmsat_plugin.ngrams.spectrum import NgramSpectrum


class PairsConfig(Settings):
    """Which corpora under which tokenizers, and where the files go."""

    corpora: Annotated[list[str], Field(min_length=1)]
    tokenizers: Annotated[list[str], Field(min_length=1)]
    output: Path
    order: PositiveInt = NgramSettings.model_fields["order"].default
    max_tokens: PositiveInt | None = None


def read_config(path: Path) -> PairsConfig:
    """Read a YAML file. A path ``configs/NAME.yaml`` that is not here stands for the one that comes with lmsat.

    Raises `LmsatError` for a file that cannot be read, and for keys that are missing, unknown or wrong.
    """
    if not path.exists() and path.parts[:-1] == ("configs",) and (SHIPPED / path.name).is_file():
        path = SHIPPED / path.name
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LmsatError(
            f"the configuration {path} cannot be read ({first_sentence(error)}): correct it"
        ) from error
    needed = [key for key, field in PairsConfig.model_fields.items() if field.is_required()]
    if missing := [key for key in needed if not isinstance(values, dict) or key not in values]:
        raise LmsatError(f"{path} has no '{missing[0]}': add it, as in configs/godey-fig7.yaml")
    return parse_settings(PairsConfig, values)


def measure_pairs(
    config: PairsConfig, settings: NgramSettings, text_field: str | None, temporary: Path | None
) -> Iterator[tuple[Path, bool]]:
    """Measure each pair that has no file yet; yield each pair's file, and whether it is new.

    Raises as `measure_corpus`, and `LmsatError` if the folder cannot be written.
    """
    check_writable(config.output)
    settings = settings.model_copy(update={"order": config.order})
    for name in config.corpora:
        corpus = CorpusSettings(corpus=name, max_tokens=config.max_tokens, text_field=text_field)
        for tokenizer in config.tokenizers:
            path = config.output / _file_name(corpus, tokenizer, settings)
            new = not path.exists()
            if new:
                found = measure_corpus(corpus, tokenizer, settings, temporary)
                write_atomically(path, json.dumps(as_data(corpus, tokenizer, settings, *found)).encode())
            yield path, new


def as_data(
    corpus: CorpusSettings,
    tokenizer: str,
    settings: NgramSettings,
    vocab_size: int,
    counts: NgramCounts,
    spectrum: NgramSpectrum,
) -> dict[str, Any]:
    """Return what was found, for JSON; entry d − 1 of ``w_error`` is that of dimension d."""
    return {
        "corpus": corpus.corpus,
        "tokenizer": tokenizer,
        "order": settings.order,
        "weighted": settings.weighted,
        "contexts": counts.contexts,
        "tokens": counts.tokens,
        "vocab_size": vocab_size,
        "exact": spectrum.whole,
        "w_error_bound": spectrum.w_error_bound,
        "w_error": spectrum.w_error.tolist(),
        "singular_values": spectrum.singular_values.tolist(),
    }


def _file_name(corpus: CorpusSettings, tokenizer: str, settings: NgramSettings) -> str:
    """Return a name that differs between all that gives different numbers."""
    parts = [
        safe_name(corpus.corpus),
        safe_name(tokenizer),
        f"{settings.order}-grams",
        f"{corpus.max_tokens}-tokens" if corpus.max_tokens else "",
        f"{max(settings.dims)}-dimensions" if settings.dims else "",
        "weighted" if settings.weighted else "",
        "exact" if settings.exact else "",
    ]
    return "__".join(part for part in parts if part) + ".json"
