"""Documents to tokens, tokens to windows, windows to batches.

Shapes: B windows of a batch, T tokens of its longest window, N scored tokens of the batch.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedTokenizerBase

    from lmsat_plugin.text.corpora import Corpus, CorpusSettings

DEFAULT_WINDOW = 2048
PREFIX_POLICY = (
    "each document begins with the prefix token; a later window begins with the last token of the one before, "
    "and the last window is filled up with tokens scored before"
)


@dataclass(frozen=True)
class Window:
    """A stretch of tokens of one document: all but the last go in, the last ``scored`` are predicted."""

    document: int
    tokens: np.ndarray
    scored: int

    def __len__(self) -> int:
        """The number of tokens that go into the model."""
        return len(self.tokens) - 1


def rolling_windows(document: int, tokens: np.ndarray, prefix: int, length: int) -> Iterator[Window]:
    """Cut a document into windows of at most ``length`` inputs that predict each token exactly once.

    The same windows as lm-eval's ``loglikelihood_rolling`` (context of one token, last window filled up).
    """
    if not len(tokens):
        return
    yield Window(document, np.concatenate([[prefix], tokens[:length]]), min(length, len(tokens)))
    for start in range(length, len(tokens), length):
        stop = min(start + length, len(tokens))
        yield Window(document, tokens[stop - length - 1 : stop], stop - start)


def make_batches(windows: Sequence[Window], batch_tokens: int) -> list[list[Window]]:
    """Group windows of like length so that a padded batch holds at most ``batch_tokens``; longest first.

    The batches do not depend on the number of processes: these take turns at them. A window longer than
    ``batch_tokens`` is a batch of its own.
    """
    ordered = sorted(windows, key=len, reverse=True)
    batches: list[list[Window]] = []
    for window in ordered:
        if batches and (len(batches[-1]) + 1) * len(batches[-1][0]) <= batch_tokens:
            batches[-1].append(window)
        else:
            batches.append([window])
    return batches


@dataclass(frozen=True)
class PaddedBatch:
    """A batch as tensors on the CPU. Padding is on the right, where no earlier position can see it."""

    inputs_BT: torch.Tensor
    scored_N: torch.Tensor
    """Which positions of the flattened [B · T] predict a scored token."""
    targets_N: torch.Tensor
    documents_N: torch.Tensor
    positions_N: torch.Tensor

    @classmethod
    def of(cls, windows: Sequence[Window]) -> PaddedBatch:
        """Pad a batch of windows with token 0, as lm-eval does."""
        length = max(map(len, windows))
        inputs_BT = np.zeros((len(windows), length), dtype=np.int64)
        scored, targets, documents, positions = [], [], [], []
        for row, window in enumerate(windows):
            inputs_BT[row, : len(window)] = window.tokens[:-1]
            positions.append(np.arange(len(window) - window.scored, len(window)))
            scored.append(row * length + positions[-1])
            targets.append(window.tokens[-window.scored :])
            documents.append(np.full(window.scored, window.document))
        columns = (
            torch.from_numpy(np.concatenate(parts).astype(np.int64))
            for parts in (scored, targets, documents, positions)
        )
        return cls(torch.from_numpy(inputs_BT), *columns)


@dataclass(frozen=True)
class TokenizedDocument:
    """A document's tokens, without special ones, and the bytes of UTF-8 that they spell."""

    label: str
    tokens: np.ndarray
    """int32, shape [tokens]."""
    n_bytes: int
    source: int = 0
    """Which document of the corpus it is, or the beginning of."""


@dataclass(frozen=True)
class TokenizedCorpus:
    """The tokens that are measured, with all that identifies them."""

    name: str
    documents: list[TokenizedDocument]
    window: int
    """Greatest number of tokens the model sees at once."""
    prefix: int
    """The token before each document's first."""
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return sum(len(document.tokens) for document in self.documents)

    @property
    def n_bytes(self) -> int:
        """Number of bytes of UTF-8."""
        return sum(document.n_bytes for document in self.documents)

    def document_bytes(self) -> np.ndarray:
        """Return the bytes of each document."""
        return np.array([document.n_bytes for document in self.documents])

    @functools.cached_property
    def windows(self) -> list[Window]:
        """All windows, document by document."""
        return [
            window
            for index, document in enumerate(self.documents)
            for window in rolling_windows(index, document.tokens, self.prefix, self.window)
        ]


def tokenize(
    corpus: Corpus,
    settings: CorpusSettings,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prefix: int,
    window: int,
    limit: int | None = None,
) -> TokenizedCorpus:
    """Take documents in the order that ``settings.seed`` gives until ``max_tokens`` or ``limit`` documents.

    Empty documents are skipped and counted. The last document is cut where the tokens end. Special tokens are
    not added: a token that the text does not hold is not predicted.

    Raises `LmsatError` if no document has a token.
    """
    order = list(range(len(corpus.documents)))
    random.Random(settings.seed).shuffle(order)
    left = float("inf") if settings.max_tokens is None else settings.max_tokens
    documents: list[TokenizedDocument] = []
    digest, empty = hashlib.sha256(), 0
    for index in order:
        if left <= 0 or (limit is not None and len(documents) >= limit):
            break
        text = whole_characters(corpus.documents[index])
        tokens = _tokenize_document(text, tokenizer, left)
        if tokens is None:
            break
        if not len(tokens[0]):
            empty += 1
            continue
        document = TokenizedDocument(f"{index} of {corpus.name}", *tokens, index)
        left -= len(document.tokens)
        documents.append(document)
        digest.update(f"{document.n_bytes}:".encode() + text.encode()[: document.n_bytes])
    if not documents:
        raise LmsatError(
            f"corpus={corpus.name} has no text ({len(corpus.documents)} documents, all empty): give one with text"
        )
    tokenized = TokenizedCorpus(corpus.name, documents, window, prefix)
    tokenized.provenance.update(
        settings.model_dump(),
        limit=limit,
        sha256=digest.hexdigest(),
        documents=len(documents),
        documents_available=len(corpus.documents),
        documents_empty=empty,
        tokens=tokenized.n_tokens,
        bytes=tokenized.n_bytes,
        tokenizer_sha256=tokenizer_hash(tokenizer),
        window=window,
        prefix_token=prefix,
        prefix_policy=PREFIX_POLICY,
    )
    return tokenized


def _tokenize_document(
    text: str, tokenizer: PreTrainedTokenizerBase, most: float
) -> tuple[np.ndarray, int] | None:
    """Return a document's tokens, at most ``most`` and a whole character, and their bytes; None if none fits."""
    # Of a long document only the beginning is tokenised, unless its tokens spell more than 64 characters each.
    for part in (text[: int(min(64 * most + 1024, len(text)))], text):
        encoding = tokenizer(
            part, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False
        )
        tokens = np.asarray(encoding["input_ids"], dtype=np.int32)
        if len(tokens) > most or len(part) == len(text):
            break
    if len(tokens) <= most:
        return tokens, _count_bytes(text)
    stop = int(most)
    if not tokenizer.is_fast:
        return tokens[:stop], _count_bytes(tokenizer.decode(tokens[:stop]))
    offsets = encoding["offset_mapping"]
    # A token may end inside a character of several bytes: the document ends before that character.
    while stop and offsets[stop][0] < offsets[stop - 1][1]:
        stop -= 1
    return (tokens[:stop], _count_bytes(text[: offsets[stop - 1][1]])) if stop else None


def _count_bytes(text: str) -> int:
    return len(text.encode())


def whole_characters(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON can hold and no tokenizer takes, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a SHA-256 of what the tokenizer does: its whole pipeline if it is a fast one, else its vocabulary."""
    if tokenizer.is_fast:
        text = tokenizer.backend_tokenizer.to_str()
    else:
        text = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, vocab_rows: int, source: str) -> None:
    """Raise `LmsatError` for a tokenizer that encodes nothing, or is of another vocabulary than the model.

    transformers 5 returns an empty tokenizer for a folder that has none, without a word.
    """
    text = "The quick brown fox jumps over 13 lazy dogs."
    tokens = tokenizer.encode(text, add_special_tokens=False)
    if not tokens or (tokenizer.unk_token_id is not None and set(tokens) == {tokenizer.unk_token_id}):
        raise LmsatError(f"no working tokenizer in {source}: name one with tokenizer=FOLDER_OR_NAME")
    # A head is padded to a round number of rows, by far less than half.
    if max(tokens) >= vocab_rows or not vocab_rows // 2 <= len(tokenizer):
        raise LmsatError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {vocab_rows} rows: "
            "they do not belong together; name the model's own with tokenizer=FOLDER_OR_NAME"
        )


def check_tokens(corpus: TokenizedCorpus, vocab_rows: int) -> None:
    """Raise `LmsatError` if the corpus holds a token that the model's embedding has no row for."""
    largest = max(int(document.tokens.max()) for document in corpus.documents)
    if largest >= vocab_rows:
        raise LmsatError(
            f"the tokenizer gives token {largest} but the model has only {vocab_rows} rows: "
            "they do not belong together; name the model's own with tokenizer=FOLDER_OR_NAME"
        )
    if not 0 <= corpus.prefix < vocab_rows:
        raise LmsatError(
            f"prefix_token_id={corpus.prefix} is no token of the model, which has {vocab_rows} rows: name another"
        )
