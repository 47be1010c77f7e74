"""The n-grams of tokenized documents: the settings, and the counts with their spectrum."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import PositiveInt, field_validator

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.ngrams.counting import NgramCounts, count_ngrams
from lmsat_plugin.ngrams.spectrum import DIMENSIONS, NgramSpectrum, ngram_spectrum
from lmsat_plugin.settings import Settings


class NgramSettings(Settings):
    """Which n-grams are counted, and at which dimensions the W-error is reported."""

    order: PositiveInt = 5
    """n: a token and the n − 1 tokens before it."""
    dims: list[PositiveInt] | None = None
    """Dimensions at which to report the W-error; powers of two from 64 on by default."""
    weighted: bool = False
    """Whether a context counts as often as it occurs, instead of once."""
    exact: bool = False
    """Whether to compute all singular values even if there are very many."""

    @field_validator("dims")
    @classmethod
    def _distinct(cls, dims: list[int] | None) -> list[int] | None:
        if dims is not None and (not dims or len(set(dims)) < len(dims)):
            raise ValueError("one dimension or more, and each once")
        return dims


def check_dims(settings: NgramSettings, vocab_size: int) -> None:
    """Raise `LmsatError` for dimensions above the vocabulary."""
    largest = max(settings.dims or [1])
    if largest > vocab_size:
        raise LmsatError(
            f"{largest} dimensions are more than the {vocab_size} tokens of the vocabulary: "
            f"ask for at most {vocab_size}"
        )


def measure_documents(
    documents: Iterable[np.ndarray], vocab_size: int, settings: NgramSettings, temporary: Path | None = None
) -> tuple[NgramCounts, NgramSpectrum]:
    """Count the n-grams of documents, arrays of token ids, and decompose their matrix.

    Raises `LmsatError` as `count_ngrams` and `ngram_spectrum`.
    """
    counts = count_ngrams(documents, settings.order, vocab_size, temporary)
    spectrum = ngram_spectrum(
        counts,
        weighted=settings.weighted,
        exact=settings.exact,
        dimensions=max(settings.dims) if settings.dims else DIMENSIONS,
    )
    return counts, spectrum
