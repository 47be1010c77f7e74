"""The probe of the n-gram gap: how far a model's predictions are from a corpus' unigram and bigram statistics.

Shapes: N tokens of a batch, C contexts, M documents.
"""

from __future__ import annotations

import numpy as np
from pydantic import PositiveInt

from lmsat_plugin.errors import DivergedError, TooLittleTextError
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.cross_entropy import TokenPredictions
from lmsat_plugin.ngrams.bigrams import BigramCounts, count_bigrams
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext, Sums, TokenBatch
from lmsat_plugin.probes.loss import stderr_by_document
from lmsat_plugin.probes.ngram_gap.expected_logits import ExpectedLogits
from lmsat_plugin.settings import Settings
from lmsat_plugin.text.tokenization import TokenizedCorpus

LEAST_COUNT = 100
"""How often a context has to be seen for its successors to count as a distribution."""


class NgramGapSettings(Settings):
    """The settings of lmsat_ngram_gap."""

    gap_tokens: PositiveInt = 10_000_000
    """Tokens of the text beside the measured one on which n-grams are counted, or all that there are."""


class NgramGapProbe(Probe[NgramGapSettings]):
    """KL divergence of the model's predictions from the corpus' unigrams and bigrams (Belrose et al. 2024, 2402.04362).

    q are relative frequencies in text of the corpus beside the measured documents, ``gap_tokens`` of it or all that
    there is; p the model's predictions at the tokens that are measured. Models first match the unigrams, then the
    bigrams, and then move away from both.

    Metrics: ``unigram_kl``, the mean over tokens of KL(q‖p) with q the unigrams; ``bigram_kl``, the mean over tokens
    whose context, the token before, was seen at least 100 times, of KL(q‖p) with q what followed it; nats, with
    standard errors by document; ``bigram_coverage``, the share of tokens with such a context. The prefix token that
    begins a document is the context of its first token, in both texts. All are null without other text, and
    ``bigram_kl`` where no token has such a context.
    """

    name = "ngram_gap"
    cost = "a forward pass, and counting 10 million tokens of other text"
    needs = Need.FINAL_STATES | Need.PREDICTIONS | Need.TRAINING_STREAM
    settings_type = NgramGapSettings

    def prepare(self, context: ProbeContext) -> None:
        """Count the n-grams of the other text; in a series of checkpoints this is done once."""
        assert context.corpus is not None
        assert context.open_training is not None
        assert context.head is not None
        self.corpus, self.missing = context.corpus, ""
        tokens, rows = self.settings.gap_tokens, context.head.weight_VD.shape[0]
        try:
            other = context.open_training(tokens, None, 17).corpus
        except TooLittleTextError:
            self.missing = (
                f"corpus={self.corpus.name} has no text beside the measured documents, on which n-grams could be "
                "counted: set max_tokens lower, or give more text"
            )
            return
        key = (self.name, other.provenance["sha256"], other.provenance["tokenizer_sha256"], other.prefix, rows)
        counts = context.cached(key, lambda: _count(self.corpus, other, rows))
        self.counts: BigramCounts = counts
        self.expected = ExpectedLogits.of(counts, context.head)

    def start(self, context: ProbeContext) -> None:
        """Make the sums empty."""
        documents = (len(self.corpus.documents),)
        self.sums = Sums(context, tokens=documents, covered=documents, unigram=documents, bigram=documents)

    def update_final(self, states_ND: torch.Tensor, batch: TokenBatch) -> None:
        """Take from the states the logits that the n-grams expect."""
        if not self.missing:
            assert batch.inputs_N is not None
            self._found = self.expected.at(states_ND, batch.inputs_N)

    def update_predictions(self, predictions: TokenPredictions, batch: TokenBatch) -> None:
        """Add KL(q‖p) = ln Σ exp z − Σ q z − H(q) of each token, z the logits."""
        if self.missing:
            return
        device = self.sums.device
        unigram_N, bigram_N, entropy_N, covered_N = (part.to(device) for part in self._found)
        documents_N, log_sums_N = batch.documents_N.to(device), predictions.log_sums_N.to(device)
        values = {
            "tokens": torch.ones_like(log_sums_N),
            "covered": covered_N,
            "unigram": log_sums_N - unigram_N - self.expected.unigram_entropy,
            "bigram": covered_N * (log_sums_N - bigram_N - entropy_N),
        }
        for name, values_N in values.items():
            getattr(self.sums, name).index_add_(0, documents_N, values_N.to(torch.float64))

    def finish(self) -> Measurement:
        """Divide the sums once. Raises `DivergedError` for predictions that are not finite."""
        if self.missing:
            names = ("unigram_kl", "bigram_kl", "bigram_coverage")
            return Measurement.with_gaps({}, dict.fromkeys(names, self.missing), {})
        sums = self.sums.totals()
        tokens, covered = float(sums["tokens"].sum()), float(sums["covered"].sum())
        metrics = {
            "unigram_kl": float(sums["unigram"].sum()) / tokens,
            "bigram_kl": float(sums["bigram"].sum()) / max(covered, 1),
            "bigram_coverage": covered / tokens,
        }
        if not np.isfinite(list(metrics.values())).all():
            raise DivergedError("the model's predictions are not finite")
        metrics |= stderr_by_document("unigram_kl", sums["unigram"], sums["tokens"])
        reasons = {}
        if covered:
            metrics |= stderr_by_document("bigram_kl", sums["bigram"], sums["covered"])
        else:
            reasons["bigram_kl"] = (
                f"no token of the measured text follows one that was seen {LEAST_COUNT} times in the "
                f"{self.counts.tokens} tokens beside it: give more text"
            )
        details = {"counted_tokens": self.counts.tokens, "contexts": len(self.counts.contexts_C)}
        return Measurement.with_gaps(metrics, reasons, {}, details)


def _count(measured: TokenizedCorpus, other: TokenizedCorpus, rows: int) -> BigramCounts:
    """Count the n-grams of a text; of its contexts those stay that the measured text has as well."""
    counts = count_bigrams((document.tokens for document in other.documents), other.prefix, rows, LEAST_COUNT)
    wanted = np.unique(np.concatenate([[measured.prefix], *(document.tokens for document in measured.documents)]))
    kept_C = np.isin(counts.contexts_C, wanted)
    return BigramCounts(counts.tokens, counts.unigrams_V, counts.contexts_C[kept_C], counts.successors_CV[kept_C])
