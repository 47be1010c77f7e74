"""Documents to tokens: what is measured, what identifies it, and whether the tokenizer is the model's."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.text.corpora import Corpus, CorpusSettings
from lmsat_plugin.text.windows import PREFIX_POLICIES, Window, rolling_windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


logger = logging.getLogger(__name__)
_SENTENCE = "The quick brown fox jumps over 13 lazy dogs."
_warned_of: set[tuple[int, int]] = set()
"""The sizes of vocabularies that were warned of, and of the models: once is enough for a series."""


@dataclass(frozen=True)
class TokenizedDocument:
    """A document's tokens, without special ones, and the bytes of UTF-8 that they spell."""

    label: str
    tokens: np.ndarray
    """int32, shape [tokens]."""
    n_bytes: int
    source: int = 0
    """Index in the corpus of the document whose beginning, or whole, this is."""


@dataclass(frozen=True)
class TokenizedCorpus:
    """The tokens that are measured, with everything that identifies them."""

    name: str
    documents: list[TokenizedDocument]
    window: int
    """Greatest number of tokens the model sees at once."""
    prefix: int
    """The token before each document's first, and with the policy ``window`` before every window."""
    prefix_policy: str = "document"
    """Where the prefix token stands: before every ``window``, or before each ``document`` alone."""
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
            for window in rolling_windows(index, document.tokens, self.prefix, self.window, policy=self.prefix_policy)
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
    """Return the tokens of documents, taken in the order of ``settings.seed``, up to ``max_tokens`` or ``limit``.

    ``limit`` counts documents that have text. Empty documents are skipped and counted. The last document is cut at
    ``max_tokens``. No special tokens are added: only tokens of the text are predicted.

    Raises `LmsatError` if no document has a token, or ``max_tokens`` is less than the first character takes.
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
        fitting = _tokenize_document(text, tokenizer, left)
        if fitting is None:
            if not documents:
                raise LmsatError(_too_few_tokens(f"document {index} of {corpus.name}", text, tokenizer, int(left)))
            break
        tokens, n_bytes = fitting
        if not len(tokens):
            empty += 1
            continue
        label = f"{index} of {corpus.name}"
        documents.append(TokenizedDocument(label=label, tokens=tokens, n_bytes=n_bytes, source=index))
        left -= len(tokens)
        digest.update(f"{n_bytes}:".encode() + text.encode()[:n_bytes])
    if not documents:
        raise LmsatError(
            f"corpus={corpus.name} has no text ({len(corpus.documents)} documents, all empty): give one with text"
        )
    policy = resolve_prefix(settings.prefix, tokenizer)
    tokenized = TokenizedCorpus(
        name=corpus.name, documents=documents, window=window, prefix=prefix, prefix_policy=policy
    )
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
        prefix=policy,
        prefix_token=prefix,
        prefix_policy=PREFIX_POLICIES[policy],
    )
    return tokenized


def _tokenize_document(text: str, tokenizer: PreTrainedTokenizerBase, most: float) -> tuple[np.ndarray, int] | None:
    """Return a document's tokens, at most ``most`` and a whole character, and their bytes; None if none fits."""
    # Of a long document only the beginning is tokenized, unless its tokens spell more than 64 characters each.
    for part in (text[: int(min(64 * most + 1024, len(text)))], text):
        encoding = tokenizer(part, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False)
        tokens = np.asarray(encoding["input_ids"], dtype=np.int32)
        if len(tokens) > most or len(part) == len(text):
            break
    if len(tokens) <= most:
        return tokens, len(text.encode())
    stop = int(most)
    if not tokenizer.is_fast:
        return tokens[:stop], len(tokenizer.decode(tokens[:stop]).encode())
    offsets = encoding["offset_mapping"]
    # A token may end inside a character of several bytes: the document ends before that character.
    while stop and offsets[stop][0] < offsets[stop - 1][1]:
        stop -= 1
    return (tokens[:stop], len(text[: offsets[stop - 1][1]].encode())) if stop else None


def _too_few_tokens(document: str, text: str, tokenizer: PreTrainedTokenizerBase, most: int) -> str:
    """Return what to say where not even the first character fits."""
    encoding = tokenizer(text[:64], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = encoding["offset_mapping"]
    needed = next((i for i in range(1, len(offsets)) if offsets[i][0] >= offsets[i - 1][1]), len(offsets))
    return (
        f"max_tokens={most} is too few for the first character of {document}, which takes {needed} tokens: "
        f"set it to at least {needed}"
    )


def resolve_prefix(policy: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return ``window`` or ``document``: ``auto`` is ``window`` where the tokenizer itself prepends BOS."""
    if policy != "auto":
        return policy
    return "window" if prepends_bos(tokenizer) else "document"


def prepends_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a text that the tokenizer encodes begins with BOS, which the text does not hold."""
    bos, text = tokenizer.bos_token_id, "The quick brown fox"
    if bos is None:
        return False
    return tokenizer.encode(text)[:1] == [bos] != tokenizer.encode(text, add_special_tokens=False)[:1]


def whole_characters(text: str) -> str:
    """Replace each unpaired surrogate by U+FFFD: JSON can hold one, and no tokenizer takes it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of a fast tokenizer's whole pipeline, or of a slow one's vocabulary."""
    if tokenizer.is_fast:
        text = tokenizer.backend_tokenizer.to_str()
    else:
        text = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def are_alike(first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase) -> bool:
    """Return whether two tokenizers have the same tokens and make the same of a text."""
    encode = {"add_special_tokens": False}
    same_text = first.encode(_SENTENCE, **encode) == second.encode(_SENTENCE, **encode)
    return same_text and first.get_vocab() == second.get_vocab()


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, vocab_rows: int, source: str) -> None:
    """Raise `LmsatError` for a tokenizer that encodes nothing, or whose tokens the model has no rows for.

    A vocabulary that is far smaller than the model's may be right, and is warned of. transformers 5 silently returns
    an empty tokenizer for a folder that has none.
    """
    tokens = tokenizer.encode(_SENTENCE, add_special_tokens=False)
    if not tokens or (tokenizer.unk_token_id is not None and set(tokens) == {tokenizer.unk_token_id}):
        raise LmsatError(f"no working tokenizer in {source}: name one with tokenizer=FOLDER_OR_NAME")
    if max(tokens) >= vocab_rows:
        raise LmsatError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {vocab_rows} rows: "
            "they do not belong together; name the model's own with tokenizer=FOLDER_OR_NAME"
        )
    # A head is padded to a round number of rows, by far less than half.
    if len(tokenizer) < vocab_rows // 2 and (len(tokenizer), vocab_rows) not in _warned_of:
        _warned_of.add((len(tokenizer), vocab_rows))
        logger.warning(
            "the tokenizer in %s has %d tokens and the model %d rows: it is taken, and the other rows for "
            "padding; if it is not the model's own, name that with tokenizer=FOLDER_OR_NAME",
            source,
            len(tokenizer),
            vocab_rows,
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
            f"prefix_token_id={corpus.prefix} is not a token of the model, which has {vocab_rows} rows: name another"
        )
