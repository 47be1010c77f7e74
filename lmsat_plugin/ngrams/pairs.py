"""Measure the n-grams of several corpora under several tokenizers, one file for each pair."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt

from lmsat_plugin.files import check_writable, safe_name, write_atomically
from lmsat_plugin.ngrams.corpus import measure_corpus
from lmsat_plugin.ngrams.documents import NgramSettings
from lmsat_plugin.settings import Settings
from lmsat_plugin.text.corpora import CorpusSettings, CorpusSource


class PairsConfig(Settings):
    """Which corpora and which tokenizers are measured, and the folder of the files."""

    corpora: Annotated[list[str], Field(min_length=1)]
    tokenizers: Annotated[list[str], Field(min_length=1)]
    output: Path
    order: PositiveInt = NgramSettings.model_fields["order"].default
    max_tokens: PositiveInt | None = None


def measure_pairs(
    config: PairsConfig,
    settings: NgramSettings,
    *,
    sources: Mapping[str, CorpusSource],
    text_field: str | None = None,
    temporary: Path | None = None,
) -> Iterator[tuple[Path, bool]]:
    """Measure each pair without a file; yield each pair's file, and whether it is new.

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
                ngrams = measure_corpus(corpus, tokenizer, settings, sources=sources, temporary=temporary)
                write_atomically(path, json.dumps(ngrams.to_dict()).encode())
            yield path, new


def _file_name(corpus: CorpusSettings, tokenizer: str, settings: NgramSettings) -> str:
    """Return a readable name with a digest of everything that the numbers depend on."""
    identity = [corpus.model_dump(mode="json"), tokenizer, settings.model_dump(mode="json")]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
    parts = safe_name(corpus.corpus), safe_name(tokenizer), f"{settings.order}-grams", digest[:12]
    return "__".join(parts) + ".json"
