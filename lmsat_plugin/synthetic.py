"""Synthetic languages: Markov sources whose entropy, spectrum and rank are known exactly.

Shapes: V tokens of the vocabulary, C contexts (V**order), R rank, T tokens of a sequence, B sequences side by side.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
_MOST_ENTRIES = 50_000_000
_MOST_ITERATIONS = 10_000
_TOKENS_AT_ONCE = 1 << 17


@dataclass(frozen=True, eq=False)
class MarkovSource:
    """A source that draws each token from P[context], the context being the last ``order`` tokens.

    P = U M, with the rows of U over R components and those of M over the vocabulary, each summing to 1. R is the
    rank of P, which appears in the spectra of n-gram models (Godey et al. 2024, Sec. 5.1). The rank of ln P is another
    one: it says how wide a softmax head has to be to be exact (Yang et al. 2018, Sec. 2.2).
    A context (x₁, …, xₖ), oldest first, is row x₁ Vᵏ⁻¹ + … + xₖ.
    """

    weights_CR: np.ndarray
    """U: the share of each component in a context's distribution."""
    components_RV: np.ndarray
    """M: each component's distribution over the vocabulary."""
    order: int = 1

    @classmethod
    def make(
        cls, vocabulary: int, order: int = 1, rank: int | None = None, seed: int = 0, concentration: float = 0.1
    ) -> MarkovSource:
        """Return a random source.

        Args:
            vocabulary: Number of tokens V, at least 2.
            order: Number of tokens of a context, at least 1.
            rank: Rank of P, at most V; by default V, with independent rows of P.
            seed: Another seed gives another source.
            concentration: Of the Dirichlet distribution of all rows: below 1 they are sparse, far above 1 they are
                alike.

        Raises `LmsatError` for values out of range, a P of more than 5e7 entries, or one of a lower rank in float64.
        """
        if vocabulary < 2 or order < 1:
            raise LmsatError(
                f"vocabulary={vocabulary} with order={order} is not a Markov source: give at least 2 tokens and order 1"
            )
        if (order + 1) * math.log(vocabulary) > math.log(_MOST_ENTRIES):
            raise LmsatError(
                f"vocabulary={vocabulary} with order={order} makes {vocabulary}**{order + 1} probabilities, "
                f"more than the {_MOST_ENTRIES:,} that are kept: give a smaller vocabulary or order"
            )
        if rank is not None and not 1 <= rank <= vocabulary:
            raise LmsatError(f"rank={rank} is not between 1 and vocabulary={vocabulary}: give one that is")
        if not 0 < concentration < math.inf:
            raise LmsatError(f"concentration={concentration} is not a positive number: give one, such as 0.1")
        rng = np.random.default_rng(seed)
        if rank is None:
            components_RV = np.eye(vocabulary)
        else:
            components_RV = rng.dirichlet(np.full(vocabulary, concentration), size=rank)
        weights_CR = rng.dirichlet(np.full(len(components_RV), concentration), size=vocabulary**order)
        source = cls(weights_CR, components_RV, order)
        singular = source.singular_values()
        if singular[-1] <= np.finfo(float).eps * len(weights_CR) * singular[0]:
            raise LmsatError(
                f"concentration={concentration} with seed={seed} makes rows so alike that their rank is "
                f"below {len(singular)}: give another concentration or seed"
            )
        return source

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.components_RV.shape[1]

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """P: the probability of each token after each context, shape [C, V]."""
        return self.weights_CR @ self.components_RV

    @functools.cached_property
    def stationary(self) -> np.ndarray:
        """The distribution of contexts in an infinite text, shape [C], to 1e-12 (sum of absolute errors).

        Raises `LmsatError` for a source that mixes too slowly.
        """
        P_TCV = self.probabilities.reshape(self.vocabulary, -1, self.vocabulary)
        share_C = np.full(len(self.probabilities), 1 / len(self.probabilities))
        before = math.inf
        for _ in range(_MOST_ITERATIONS):
            # The oldest token of a context leaves, the drawn one enters.
            moved_C = np.einsum("tc,tcv->cv", share_C.reshape(self.vocabulary, -1), P_TCV).ravel()
            moved_C /= moved_C.sum()
            change = float(np.abs(moved_C - share_C).sum())
            share_C = moved_C
            # Changes that shrink by a ratio q add up to change · q / (1 − q).
            if change <= 1e-13 * (1 - change / before):
                return share_C
            before = change
        raise LmsatError(
            f"the source's contexts are not in equilibrium after {_MOST_ITERATIONS:,} tokens: "
            "make it with a greater concentration, whose rows overlap more"
        )

    @functools.cached_property
    def entropy_rate(self) -> float:
        """H = −Σ_c π_c Σ_v P_cv ln P_cv in nats per token: the lowest loss of any predictor."""
        P_CV = self.probabilities
        return -float(self.stationary @ (P_CV * np.log(np.where(P_CV > 0, P_CV, 1))).sum(1))

    def least_loss(self, rank: int, seed: int = 0) -> float:
        """Return the lowest loss of an LM head of this rank, in nats per token: the softmax bottleneck.

        It is the minimum of −Σ_c π_c Σ_v P_cv ln softmax(H W)_cv over H of shape [C, rank] and W of shape [rank, V]:
        what a model of this width and unlimited depth could reach if its norm left H free (Yang et al. 2018, Sec. 2.2).
        L-BFGS minimises it from a random start. As the problem is not convex, the result is an upper bound. Raises
        `LmsatError` for a rank that is not in 1 … V.
        """
        if not 1 <= rank <= self.vocabulary:
            raise LmsatError(f"rank={rank} is not between 1 and vocabulary={self.vocabulary}: give one that is")
        from scipy.optimize import minimize
        from scipy.special import log_softmax

        joint_CV = self.stationary[:, None] * self.probabilities
        split = len(joint_CV) * rank

        def loss_and_slope(factors: np.ndarray) -> tuple[float, np.ndarray]:
            H_CR, W_RV = factors[:split].reshape(-1, rank), factors[split:].reshape(rank, -1)
            log_q_CV = log_softmax(H_CR @ W_RV, axis=1)
            slope_CV = self.stationary[:, None] * np.exp(log_q_CV) - joint_CV
            slopes = ((slope_CV @ W_RV.T).ravel(), (H_CR.T @ slope_CV).ravel())
            return -float((joint_CV * log_q_CV).sum()), np.concatenate(slopes)

        start = np.random.default_rng(seed).normal(size=split + rank * self.vocabulary) / math.sqrt(rank)
        result = minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "maxfun": 4000})
        return float(result.fun)

    def singular_values(self, weighted: bool = False) -> np.ndarray:
        """Return the R singular values of P, falling; the others are zero.

        All contexts have the same weight (Godey et al. 2024, Sec. 5.1). With ``weighted`` each row is multiplied by
        √π_c, so that rare contexts count less.
        """
        rows_CR = self.weights_CR * np.sqrt(self.stationary)[:, None] if weighted else self.weights_CR
        triangle_RR = np.linalg.qr(rows_CR, mode="r")
        return np.linalg.svd(triangle_RR @ self.components_RV, compute_uv=False)

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """Return ``n`` tokens of one text, int64, as from the middle of an infinite text.

        About √n pieces are drawn side by side, each from a guessed context. Where the piece before ends in another
        context, the piece is drawn again with the same random numbers: the text equals one drawn token by token.
        Raises `LmsatError` for ``n`` below 1.
        """
        if n < 1:
            raise LmsatError(f"n={n} tokens make no sample: give at least 1")
        rng = np.random.default_rng(seed)
        pieces = math.isqrt(n)
        uniform_TB = rng.random((-(-n // pieces), pieces))
        starts_B = self._contexts(pieces, rng)
        tokens_TB, ends_B = self._walk(starts_B, uniform_TB)
        while len(wrong := 1 + np.flatnonzero(ends_B[:-1] != starts_B[1:])):
            starts_B[wrong] = ends_B[wrong - 1]
            tokens_TB[:, wrong], ends_B[wrong] = self._walk(starts_B[wrong], uniform_TB[:, wrong])
        return tokens_TB.T.ravel()[:n]

    def documents(self, n_documents: int | None, length: int, seed: int = 0) -> Iterator[str]:
        """Yield ``n_documents`` of ``length`` tokens, words such as ``t17`` between spaces; for None, without end.

        Each begins as in the middle of an infinite text, independent of the others. The first documents are the same
        for any number of them. Raises `LmsatError` for a length below 1.
        """
        if length < 1:
            raise LmsatError(f"length={length} tokens make no document: give at least 1")
        return itertools.islice(self._documents(length, seed), n_documents)

    def _documents(self, length: int, seed: int) -> Iterator[str]:
        rng = np.random.default_rng(seed)
        at_once = max(1, _TOKENS_AT_ONCE // length)
        words = [f"t{token}" for token in range(self.vocabulary)]
        while True:
            tokens_TB, _ = self._walk(self._contexts(at_once, rng), rng.random((length, at_once)))
            for document in tokens_TB.T.tolist():
                yield " ".join(words[token] for token in document)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Return a tokenizer for `documents`: token v is the word ``tv``; token V ends a text and is any other word."""
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        ids = {f"t{token}": token for token in range(self.vocabulary)} | {END_OF_TEXT: self.vocabulary}
        core = Tokenizer(models.WordLevel(ids, unk_token=END_OF_TEXT))
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)

    def loss(self, tokens: np.ndarray) -> float:
        """Return −ln p(tokens) / T in nats per token, for tokens of shape [T]: no predictor is better on average.

        The first tokens, which have no whole context before them, get their probability at any place of a text. The
        loss is infinite for a sequence that the source cannot draw. Raises `LmsatError` for an empty sequence and for
        tokens that are not the source's.
        """
        tokens_T = np.asarray(tokens)
        if tokens_T.ndim != 1 or not len(tokens_T) or not np.issubdtype(tokens_T.dtype, np.integer):
            raise LmsatError(
                f"tokens of shape {tokens_T.shape} and type {tokens_T.dtype} are not a sequence: give whole numbers [T]"
            )
        if not 0 <= tokens_T.min() <= tokens_T.max() < self.vocabulary:
            raise LmsatError(
                f"tokens from {tokens_T.min()} to {tokens_T.max()} are not all the source's, "
                f"which are 0 to {self.vocabulary - 1}: leave the others out"
            )
        first = tokens_T[: self.order]
        of_first = self.stationary.reshape(self.vocabulary ** len(first), -1).sum(1)
        p = of_first[_rows(first, len(first), self.vocabulary)]
        if len(tokens_T) > self.order:
            contexts_T = _rows(tokens_T[:-1], self.order, self.vocabulary)
            p = np.append(p, self.probabilities[contexts_T, tokens_T[self.order :]])
        with np.errstate(divide="ignore"):
            return -float(np.log(p).sum()) / len(tokens_T)

    def _contexts(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.choice(len(self.stationary), size=n, p=self.stationary)

    @functools.cached_property
    def _ladder(self) -> np.ndarray:
        """c + Σ_{w ≤ v} P_cw, context by context: it never falls, so that one binary search finds tokens."""
        ladder_CV = np.cumsum(self.probabilities, axis=1)
        ladder_CV /= ladder_CV[:, -1:]
        ladder_CV += np.arange(len(ladder_CV))[:, None]
        return ladder_CV.ravel()

    def _walk(self, contexts_B: np.ndarray, uniform_TB: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens [T, B] that follow the contexts, and the contexts at their end."""
        tokens_TB = np.empty(uniform_TB.shape, dtype=np.int64)
        for tokens_B, uniform_B in zip(tokens_TB, uniform_TB, strict=True):
            # A sum that is rounded up would belong to the next context.
            rungs_B = np.minimum(contexts_B + uniform_B, np.nextafter(contexts_B + 1.0, 0))
            tokens_B[:] = np.searchsorted(self._ladder, rungs_B, side="right") - contexts_B * self.vocabulary
            contexts_B = (contexts_B * self.vocabulary + tokens_B) % len(self.probabilities)
        return tokens_TB, contexts_B


def _rows(tokens_T: np.ndarray, order: int, vocabulary: int) -> np.ndarray:
    """Return the row of P of each stretch of ``order`` tokens, shape [T − order + 1]."""
    stretches = np.lib.stride_tricks.sliding_window_view(tokens_T, order)
    return stretches @ vocabulary ** np.arange(order)[::-1]
