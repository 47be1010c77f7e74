"""The n-gram dimension of a whole corpus under a tokenizer, without a model."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from lmsat_plugin.corpora import load_corpus
from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.files import check_writable
from lmsat_plugin.measurement.windows import check_tokenizer, whole_characters
from lmsat_plugin.ngrams.measurement import check_dims, measure_documents
from lmsat_plugin.plugins import plugins

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from lmsat_plugin.corpora import CorpusSettings
    from lmsat_plugin.ngrams.counting import NgramCounts
    from lmsat_plugin.ngrams.measurement import NgramSettings
    from lmsat_plugin.ngrams.spectrum import NgramSpectrum

_BATCH_CHARACTERS = 1 << 22


def measure_corpus(
    corpus: CorpusSettings, tokenizer_name: str, settings: NgramSettings, temporary: Path | None = None
) -> tuple[int, NgramCounts, NgramSpectrum]:
    """Return the size of the vocabulary, the largest id + 1, and what is found in the corpus.

    The corpus' documents are tokenised a batch at a time, in the order in which a model is measured on them; with
    ``max_tokens`` the last of them is cut. Large counts go to a file in the folder ``temporary``.

    Raises `LmsatError` for a corpus or a tokenizer that is not there, for documents that are all too short, for
    dimensions above the vocabulary, and where disk or memory is too small.
    """
    if temporary is not None:
        check_writable(temporary)
    tokenizer = _load_tokenizer(tokenizer_name)
    vocab_size = max(tokenizer.get_vocab().values(), default=0) + 1
    check_tokenizer(tokenizer, vocab_size, tokenizer_name)
    check_dims(settings, vocab_size)
    texts = list(load_corpus(corpus, plugins().corpora).documents)
    random.Random(corpus.seed).shuffle(texts)
    with tqdm(texts, desc=corpus.corpus, unit="document", disable=None) as shown:
        tokens = token_stream(shown, tokenizer, corpus.max_tokens)
        return vocab_size, *measure_documents(tokens, vocab_size, settings, temporary)


def token_stream(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, most: int | None
) -> Iterator[np.ndarray]:
    """Yield the tokens of each text, int32, without special ones, until there are ``most``.

    Only a batch of texts is held as tokens; a fast tokenizer encodes them in parallel.
    """
    for batch in _batches(texts, most):
        for ids in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
            tokens = np.asarray(ids[:most], dtype=np.int32)
            yield tokens
            if most is not None:
                most -= len(tokens)
                if most == 0:
                    return


def _batches(texts: Iterable[str], most: int | None) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        # Of a long document the beginning is enough: hardly a tokenizer spells more than 64 characters a token.
        batch.append(whole_characters(text if most is None else text[: 64 * most + 1024]))
        size += len(batch[-1])
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        raise LmsatError(
            f"no tokenizer at {name} ({first_sentence(error)}): give the folder or the Hub name of one"
        ) from error
