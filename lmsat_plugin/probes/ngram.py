"""The probe of the corpus' n-gram dimension: how many dimensions its next-token distributions need."""

from __future__ import annotations

from lmsat_plugin.ngrams.documents import NgramSettings, check_dims, measure_documents
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext
from lmsat_plugin.text.tokenization import TokenizedCorpus


class NgramProbe(Probe[NgramSettings]):
    """W-error of the corpus' n-gram matrix W at each dimension (Godey et al. 2024, Sec. 5.1 and Fig. 7).

    W has a row for each context of n − 1 tokens that occurs with a successor, and a column for each token of the
    vocabulary: the relative frequencies of the successors. W-error(d) = √(Σ_{i>d} s² / Σ s²), s the singular
    values of W. N-grams do not cross documents. The numbers depend on the corpus and the tokenizer, not on
    the model's weights.

    Metrics: ``w_error_{d}`` for each of ``dims``; ``contexts``, the rows of W; ``ngram_tokens``, the tokens of the
    corpus; ``dimension_half`` and ``dimension_negligible``, the least d with a W-error of at most 0.5 and 0.01.
    Arrays: ``singular_values``, float64, falling; ``w_error``, entry d − 1 for dimension d. Both have an entry
    for each token of the vocabulary, or where these are too many (see `ngram_spectrum`) for the first 1,000, or as
    many as ``dims`` asks for; a metric that lies beyond is left out.
    """

    name = "ngram"
    needs = Need.TOKENS
    settings_type = NgramSettings

    def start(self, context: ProbeContext) -> None:
        """Take the tokens; nothing is counted yet. Raises `LmsatError` for dimensions above the vocabulary."""
        assert context.corpus is not None
        self.corpus: TokenizedCorpus = context.corpus
        self.vocab_size = context.vocab_rows
        check_dims(self.settings, self.vocab_size)

    def finish(self) -> Measurement:
        """Count the n-grams and decompose their matrix. Raises `LmsatError` for documents that are all too short."""
        counts, spectrum = measure_documents(
            (document.tokens for document in self.corpus.documents), self.vocab_size, self.settings
        )
        powers = [1 << exponent for exponent in range(6, len(spectrum.w_error).bit_length())]
        metrics = {f"w_error_{d}": float(spectrum.w_error[d - 1]) for d in self.settings.dims or powers}
        metrics |= {"contexts": counts.contexts, "ngram_tokens": counts.tokens}
        for name, threshold in (("dimension_half", 0.5), ("dimension_negligible", 0.01)):
            if (dimension := spectrum.dimension(threshold)) is not None:
                metrics[name] = dimension
        arrays = {"singular_values": spectrum.singular_values, "w_error": spectrum.w_error}
        return Measurement(metrics=metrics, arrays=arrays)
