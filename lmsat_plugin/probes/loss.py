"""The probe of the loss: nats per token, bits per byte, by document and by position in the window."""

from __future__ import annotations

import math

from lmsat_plugin.analysis.stats.ratio import ratio_stderr
from lmsat_plugin.errors import DivergedError
from lmsat_plugin.lazy import torch
from lmsat_plugin.metrics import directions
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext, Sums, TokenBatch
from lmsat_plugin.settings import Settings
from lmsat_plugin.text.tokenization import TokenizedCorpus
from lmsat_plugin.text.tokenizer_invariant import bits_per_byte, unigram_nats, unigram_normalised_perplexity


def stderr_by_document(metric: str, sums_M: torch.Tensor, tokens_M: torch.Tensor) -> dict[str, float]:
    """Return ``{metric_stderr: ...}`` of the ratio Σ sums / Σ tokens over M documents; empty for a single document.

    See `ratio_stderr`: documents are the unit that is drawn.
    """
    if len(sums_M) < 2:
        return {}
    # As tensors: NumPy adds up in another order, which would change the last digit of results.
    return {f"{metric}_stderr": float(ratio_stderr(sums_M, tokens_M))}  # type: ignore[arg-type]


class LossProbe(Probe[Settings]):
    """Cross-entropy of the corpus (Godey et al. 2024, Fig. 1a; Du et al. 2024, x axis; Kaplan et al. 2020, L).

    Metrics: ``loss`` in nats per token, the sum over tokens of −log p divided once by their number; ``perplexity``
    e^loss; ``bits_per_byte`` = nats / (ln 2 · bytes of UTF-8); ``loss_stderr``, the standard error of this ratio
    with documents as the unit that is drawn; ``tokens``, ``bytes``; ``unigram_loss``, the entropy of the
    tokens' frequencies in this text, nats, and ``unigram_normalised_perplexity`` = e^(loss − unigram_loss) (Roh et al.
    2020, arXiv 2011.13220), which compare across tokenizers as ``bits_per_byte`` does.
    Arrays: ``by_position`` (mean loss after 0, 1, ... tokens of context, nats; NaN where no token stands) with
    ``by_position_tokens``; a prefix token that stands in every window counts as context; ``by_document`` (nats, summed)
    with ``by_document_tokens``, ``by_document_bytes``.
    """

    name = "loss"
    needs = Need.TOKEN_LOSSES
    higher_is_better = directions("loss", "perplexity", "bits_per_byte", "unigram_normalised_perplexity")

    def start(self, context: ProbeContext) -> None:
        """Make the sums empty."""
        assert context.corpus is not None
        self.corpus: TokenizedCorpus = context.corpus
        documents, positions = len(self.corpus.documents), self.corpus.window
        self.sums = Sums(
            context,
            document_nats=(documents,),
            document_tokens=(documents,),
            position_nats=(positions,),
            position_tokens=(positions,),
        )

    def update_losses(self, losses_N: torch.Tensor, batch: TokenBatch) -> None:
        """Add the batch's losses by document and by position."""
        documents, positions = len(self.corpus.documents), self.corpus.window
        ones_N = torch.ones_like(losses_N)
        documents_N, positions_N = (ids_N.to(losses_N.device) for ids_N in (batch.documents_N, batch.positions_N))
        self.sums.update(
            document_nats=losses_N.new_zeros(documents).index_add_(0, documents_N, losses_N),
            document_tokens=losses_N.new_zeros(documents).index_add_(0, documents_N, ones_N),
            position_nats=losses_N.new_zeros(positions).index_add_(0, positions_N, losses_N),
            position_tokens=losses_N.new_zeros(positions).index_add_(0, positions_N, ones_N),
        )

    def finish(self) -> Measurement:
        """Divide the sums once."""
        sums = self.sums.totals()
        nats_M, tokens_M = sums["document_nats"], sums["document_tokens"]
        bad = (~torch.isfinite(nats_M)).nonzero().flatten().tolist()
        if bad:
            label = self.corpus.documents[bad[0]].label
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise DivergedError(f"the loss of document {label}{more} is {float(nats_M[bad[0]])}")
        nats, tokens, n_bytes = float(nats_M.sum()), float(tokens_M.sum()), self.corpus.n_bytes
        loss = nats / tokens
        unigram = unigram_nats(document.tokens for document in self.corpus.documents)
        metrics = {
            "loss": loss,
            "perplexity": math.exp(loss) if loss < 700 else math.inf,
            "bits_per_byte": bits_per_byte(loss, int(tokens), n_bytes),
            "unigram_loss": unigram,
            "unigram_normalised_perplexity": unigram_normalised_perplexity(loss, unigram) if loss < 700 else math.inf,
            "tokens": int(tokens),
            "bytes": n_bytes,
        }
        # Right after `loss` lm-eval writes its own "N/A" under this key, which a later entry replaces.
        metrics |= stderr_by_document("loss", nats_M, tokens_M)
        return Measurement(
            metrics=metrics,
            arrays={
                "by_position": (sums["position_nats"] / sums["position_tokens"]).numpy(),
                "by_position_tokens": sums["position_tokens"].long().numpy(),
                "by_document": nats_M.numpy(),
                "by_document_tokens": tokens_M.long().numpy(),
                "by_document_bytes": self.corpus.document_bytes(),
            },
        )
