"""Text to train on that shares nothing with the measured text, as a stream of final states.

Shapes: N tokens, D width of the final states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from lmsat_plugin.errors import LmsatError, TooLittleTextError
from lmsat_plugin.measurement.execution import Processes
from lmsat_plugin.measurement.forward import ForwardPass, PassCallbacks
from lmsat_plugin.probe import FinalStates, TokenBatch
from lmsat_plugin.text.corpora import Corpus, CorpusSettings, CorpusSource, load_corpus
from lmsat_plugin.text.tokenization import TokenizedCorpus, tokenize
from lmsat_plugin.text.windows import Window

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# So many equal tokens in a row count as shared text.
_STRETCH = 50
# Licences and headings recur in any text.
_MOST_OVERLAP = 0.1


@dataclass(frozen=True, kw_only=True)
class FinalStateStream:
    """Text to train on, and the forward pass that computes its final states. No gradient goes into the model."""

    corpus: TokenizedCorpus
    forward: Callable[[Sequence[Window]], ForwardPass]
    width: int
    """Of the final states."""
    device: torch.device

    @property
    def rank(self) -> int:
        """Which of the processes this one is, from 0, though each may have the whole stream."""
        return Processes.current().rank

    def rounds(self, tokens: int, seed: int) -> list[list[Window]]:
        """Return all windows in a random order, in rounds of about ``tokens`` tokens."""
        windows = self.corpus.windows
        order = np.random.default_rng(seed).permutation(len(windows))
        ends = np.cumsum([windows[index].scored for index in order])
        number = max(1, round(ends[-1] / tokens))
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, number) / number)
        return [[windows[index] for index in part] for part in np.split(order, cuts) if len(part)]

    def states(self, windows: Sequence[Window]) -> FinalStates:
        """Return this process' share of the final states from which the windows' tokens are predicted."""
        ends = np.cumsum([window.scored for window in windows])
        # The place of each window's position 0, scored or not: only a window's last tokens are predicted.
        origins_W = torch.from_numpy(ends - [len(window) for window in windows])
        seen: list[tuple[torch.Tensor, ...]] = []

        def keep(states_ND: torch.Tensor, batch: TokenBatch) -> None:
            places_N = origins_W.to(batch.documents_N.device)[batch.documents_N] + batch.positions_N
            seen.append((states_ND.clone(), batch.targets_N, places_N))

        numbered = [replace(window, document=index) for index, window in enumerate(windows)]
        self.forward(numbered).run(PassCallbacks(start=seen.clear, on_final=keep))
        if not seen:
            # Of the device and width of those that the others have: all processes add up what is made of them.
            none_N = torch.zeros(0, dtype=torch.long, device=self.device)
            states_ND = torch.zeros(0, self.width, device=self.device)
            return FinalStates(states_ND=states_ND, targets_N=none_N, places_N=none_N)
        states_ND, targets_N, places_N = (torch.cat(column) for column in zip(*seen, strict=True))
        return FinalStates(states_ND=states_ND, targets_N=targets_N, places_N=places_N)


@dataclass(frozen=True, kw_only=True)
class MeasuredText:
    """The text that is measured, which a training must not see."""

    tokenized: TokenizedCorpus
    read: Callable[[], Corpus]
    """Returns the documents of which ``tokenized`` is a part."""
    settings: CorpusSettings
    tokenizer: PreTrainedTokenizerBase
    sources: Mapping[str, CorpusSource]
    """The registered named corpora."""


def training_text(measured: MeasuredText, tokens: int, name: str | None, least: int) -> TokenizedCorpus:
    """Return ``tokens`` tokens of the corpus ``name``, or for None of the measured corpus' other text.

    Raises `TooLittleTextError` if there are fewer than ``least`` tokens, and `LmsatError` if the corpora share text.
    """
    settings, tokenized = measured.settings, measured.tokenized
    other = name is not None and name != settings.corpus
    wanted = settings.model_copy(update={"max_tokens": tokens, **({"corpus": name} if other else {})})
    source = load_corpus(wanted, measured.sources) if other else _rest(measured, tokens)
    n_tokens = 0
    if any(source.documents):
        text = tokenize(source, wanted, measured.tokenizer, prefix=tokenized.prefix, window=tokenized.window)
        n_tokens = text.n_tokens
    # The last document is cut before a character that does not fit as a whole.
    if n_tokens < least - 16:
        where = f"train_corpus={name}" if other else f"corpus={settings.corpus}, beside the text measured,"
        raise TooLittleTextError(
            f"the training wants {least:,} tokens, more than the {n_tokens:,} tokens that {where} has: "
            f"set {'train_tokens' if other else 'train_tokens or max_tokens'} lower, or name a larger train_corpus"
        )
    if other and (share := shared_text(tokenized, text)) > _MOST_OVERLAP:
        raise LmsatError(
            f"{share:.0%} of the text measured is in train_corpus={name} too: name a train_corpus apart from it, "
            "or none, for the rest of the corpus"
        )
    return text


def _rest(measured: MeasuredText, tokens: int) -> Corpus:
    """Return the documents that are not measured, and the part that was cut off the last measured one."""
    settings, corpus = measured.settings, measured.read()
    everything = corpus
    if settings.corpus in measured.sources:
        # A named corpus may stop where enough text is read.
        most = None if settings.max_tokens is None else settings.max_tokens + tokens
        everything = load_corpus(settings.model_copy(update={"max_tokens": most}), measured.sources)
    taken = {corpus.documents[document.source] for document in measured.tokenized.documents}
    rest = [text for text in everything.documents if text not in taken]
    last = measured.tokenized.documents[-1]
    cut = corpus.documents[last.source].encode("utf-8", "surrogatepass")[last.n_bytes :]
    return Corpus(settings.corpus, (*rest, cut.decode("utf-8", "replace")))


def shared_text(corpus: TokenizedCorpus, other: TokenizedCorpus) -> float:
    """Return the share of a corpus' stretches of 50 tokens that occur in another, at any place."""
    hashes = np.concatenate([_rolling_hashes(document.tokens)[::_STRETCH] for document in corpus.documents])
    shared = np.zeros(len(hashes), bool)
    for document in other.documents:
        shared |= np.isin(hashes, _rolling_hashes(document.tokens))
    return float(shared.mean()) if len(hashes) else 0.0


def _rolling_hashes(tokens: np.ndarray) -> np.ndarray:
    """Return a polynomial hash modulo 2⁶⁴ of each stretch of 50 tokens, shape [tokens − 49]."""
    if len(tokens) < _STRETCH:
        return np.empty(0, np.uint64)
    base = np.uint64(0x9E3779B97F4A7C15)
    mixed = (tokens.astype(np.uint64) + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(31)
    hashes = np.zeros(len(tokens) - _STRETCH + 1, np.uint64)
    for offset in range(_STRETCH):
        hashes = hashes * base + mixed[offset : offset + len(hashes)]
    return hashes
