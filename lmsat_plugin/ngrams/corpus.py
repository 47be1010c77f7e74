"""Measure the n-grams of whole corpora under tokenizers, without a model; pairs of these into one file each."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, PositiveInt
from tqdm import tqdm

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import check_writable, safe_name, write_atomically
from lmsat_plugin.ngrams.counting import NgramCounts, batches_of
from lmsat_plugin.ngrams.documents import NgramSettings, check_dims, measure_documents
from lmsat_plugin.ngrams.spectrum import NgramSpectrum
from lmsat_plugin.settings import Settings
from lmsat_plugin.text.corpora import CorpusSettings, CorpusSource, load_corpus
from lmsat_plugin.text.tokenization import check_tokenizer, whole_characters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH_CHARACTERS = 1 << 22


@dataclass(frozen=True, eq=False, kw_only=True)
class CorpusNgrams:
    """The n-grams of one corpus under one tokenizer, and the spectrum of their matrix."""

    corpus: CorpusSettings
    tokenizer: str
    settings: NgramSettings
    vocab_size: int
    """The largest token id + 1."""
    counts: NgramCounts
    spectrum: NgramSpectrum

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; entry d − 1 of ``w_error`` is that of dimension d."""
        return {
            "corpus": self.corpus.corpus,
            "tokenizer": self.tokenizer,
            "order": self.settings.order,
            "weighted": self.settings.weighted,
            "contexts": self.counts.contexts,
            "tokens": self.counts.tokens,
            "vocab_size": self.vocab_size,
            "exact": self.spectrum.whole,
            "w_error_bound": self.spectrum.w_error_bound,
            "w_error": self.spectrum.w_error.tolist(),
            "singular_values": self.spectrum.singular_values.tolist(),
        }


def measure_corpus(
    corpus: CorpusSettings,
    tokenizer_name: str,
    settings: NgramSettings,
    *,
    sources: Mapping[str, CorpusSource],
    temporary: Path | None = None,
) -> CorpusNgrams:
    """Count the n-grams of a corpus and decompose their matrix. ``sources`` are the registered named corpora.

    The corpus' documents are tokenized in batches, in the order in which a model is measured on them; with
    ``max_tokens`` the last of them is cut. Large counts go to a file in the folder ``temporary``.

    Raises `LmsatError` for a missing corpus or tokenizer, for documents that are all too short, for dimensions above
    the vocabulary, and for too little disk or memory.
    """
    if temporary is not None:
        check_writable(temporary)
    tokenizer = _load_tokenizer(tokenizer_name)
    vocab_size = max(tokenizer.get_vocab().values(), default=0) + 1
    check_tokenizer(tokenizer, vocab_size, tokenizer_name)
    check_dims(settings, vocab_size)
    texts = list(load_corpus(corpus, sources).documents)
    random.Random(corpus.seed).shuffle(texts)
    with tqdm(texts, desc=corpus.corpus, unit="document", disable=None) as shown:
        tokens = token_stream(shown, tokenizer, corpus.max_tokens)
        counts, spectrum = measure_documents(tokens, vocab_size, settings, temporary)
    return CorpusNgrams(
        corpus=corpus,
        tokenizer=tokenizer_name,
        settings=settings,
        vocab_size=vocab_size,
        counts=counts,
        spectrum=spectrum,
    )


def token_stream(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, most: int | None) -> Iterator[np.ndarray]:
    """Yield the tokens of each text, int32, without special ones, up to ``most`` in all.

    Only one batch of texts is held as tokens; a fast tokenizer encodes it in parallel.
    """
    # Of a long document the beginning is enough: hardly any tokenizer has more than 64 characters in a token.
    parts = (whole_characters(text if most is None else text[: 64 * most + 1024]) for text in texts)
    for batch in batches_of(parts, _BATCH_CHARACTERS):
        for ids in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
            tokens = np.asarray(ids[:most], dtype=np.int32)
            yield tokens
            if most is not None:
                most -= len(tokens)
                if most == 0:
                    return


def _load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        raise LmsatError(
            f"no tokenizer at {name} ({first_sentence(error)}): give the folder or the Hub name of one"
        ) from error


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
    identity = [corpus.model_dump(mode="json", exclude={"prefix"}), tokenizer, settings.model_dump(mode="json")]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
    parts = safe_name(corpus.corpus), safe_name(tokenizer), f"{settings.order}-grams", digest[:12]
    return "__".join(parts) + ".json"
