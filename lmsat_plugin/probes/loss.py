"""The probe of the loss: nats per token, bits per byte, by document, by position, by frequency; hits and calibration.

Shapes: N tokens of a batch, M documents, V tokens of the vocabulary that occur in the text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from lmsat_plugin.analysis.stats.ratio import ratio_stderr
from lmsat_plugin.errors import DivergedError
from lmsat_plugin.lazy import torch
from lmsat_plugin.metrics import directions
from lmsat_plugin.model.cross_entropy import TokenPredictions
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext, Sums, TokenBatch
from lmsat_plugin.settings import Settings
from lmsat_plugin.text.frequencies import THIRDS, octaves_of_count, thirds_of_mass, token_counts
from lmsat_plugin.text.tokenization import TokenizedCorpus
from lmsat_plugin.text.tokenizer_invariant import bits_per_byte, unigram_nats, unigram_normalised_perplexity

CALIBRATION_BINS = 15
_OF_PREDICTIONS = (
    *("accuracy", "entropy", "calibration_error", *(f"loss_{third}" for third in THIRDS)),
    *("by_frequency", "by_frequency_tokens"),
)


class LossSettings(Settings):
    """The settings of lmsat_loss."""

    token_losses: bool = False
    """Keep the loss of every token, as the array ``by_token``, and which token it is, as ``by_token_ids``."""


def stderr_by_document(metric: str, sums_M: torch.Tensor, tokens_M: torch.Tensor) -> dict[str, float]:
    """Return ``{metric_stderr: ...}`` of the ratio Σ sums / Σ tokens over M documents; empty for a single document.

    See `ratio_stderr`: documents are the unit that is drawn.
    """
    if len(sums_M) < 2:
        return {}
    # As tensors: NumPy adds up in another order, which would change the last digit of results.
    return {f"{metric}_stderr": float(ratio_stderr(sums_M, tokens_M))}  # type: ignore[arg-type]


class LossProbe(Probe[LossSettings]):
    """Cross-entropy of the corpus (Godey et al. 2024, Fig. 1a; Du et al. 2024, x axis; Kaplan et al. 2020, L).

    Metrics: ``loss`` in nats per token, the sum over tokens of −log p divided once by their number; ``perplexity``
    e^loss; ``bits_per_byte`` = nats / (ln 2 · bytes of UTF-8); ``loss_stderr``, the standard error of this ratio
    with documents as the unit that is drawn; ``tokens``, ``bytes``; ``unigram_loss``, the entropy of the
    tokens' frequencies in this text, nats, and ``unigram_normalised_perplexity`` = e^(loss − unigram_loss) (Roh et al.
    2020, arXiv 2011.13220), which compare across tokenizers as ``bits_per_byte`` does. ``accuracy``, the share of
    tokens than which none is more probable; ``entropy`` −Σ p ln p of the predictions, their mean, nats; both with a
    standard error by document. ``calibration_error``: in 15 bins of equally many tokens, by the probability of the most
    probable token, Σ |hits − Σ probabilities|/tokens (Naeini et al. 2015; equal-mass bins: Nguyen and O'Connor 2015).
    ``loss_frequent``, ``loss_medium``, ``loss_rare``: of the tokens in each third of this text, from the most frequent
    tokens of the vocabulary to the least (`thirds_of_mass`); null where a third is empty.
    Arrays: ``by_position`` (mean loss after 0, 1, ... tokens of context, nats; NaN where no token stands) with
    ``by_position_tokens``; a prefix token that stands in every window counts as context; ``by_document`` (nats, summed)
    with ``by_document_tokens``, ``by_document_bytes``; ``by_frequency`` (mean loss of the tokens that occur 2^k to
    2^(k+1) − 1 times in this text, entry k, nats; NaN where there is none) with ``by_frequency_tokens``; with
    ``token_losses`` ``by_token``, float32, of all tokens, document by document, and ``by_token_ids``, int32, their
    numbers in the vocabulary.
    """

    name = "loss"
    needs = Need.TOKEN_LOSSES | Need.PREDICTIONS
    settings_type = LossSettings
    higher_is_better = directions(
        *("loss", "perplexity", "bits_per_byte", "unigram_normalised_perplexity"), *_OF_PREDICTIONS
    )
    additions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "predictions": _OF_PREDICTIONS,
        "token_losses": ("by_token", "by_token_ids"),
    }

    def start(self, context: ProbeContext) -> None:
        """Make the sums empty."""
        assert context.corpus is not None
        self.corpus: TokenizedCorpus = context.corpus
        documents, positions, tokens = len(self.corpus.documents), self.corpus.window, self.corpus.n_tokens
        counts_V = token_counts(document.tokens for document in self.corpus.documents)
        self.thirds_V, self.octaves_V = (
            torch.from_numpy(classes(counts_V)).to(context.device) for classes in (thirds_of_mass, octaves_of_count)
        )
        octaves = int(octaves_of_count(counts_V).max()) + 1
        self.sums = Sums(
            context,
            **dict.fromkeys(("document_nats", "document_tokens", "document_hits", "document_entropy"), (documents,)),
            **dict.fromkeys(("position_nats", "position_tokens"), (positions,)),
            **dict.fromkeys(("third_nats", "third_tokens"), (len(THIRDS),)),
            **dict.fromkeys(("octave_nats", "octave_tokens"), (octaves,)),
            token_hits=(tokens,),
            token_top=(tokens,),
            token_nats=(tokens,) if self.settings.token_losses else (0,),
        )
        lengths = [len(document.tokens) for document in self.corpus.documents]
        self.firsts_M = torch.from_numpy(np.cumsum([0, *lengths[:-1]])).to(self.sums.device)

    def update_losses(self, losses_N: torch.Tensor, batch: TokenBatch) -> None:
        """Add the batch's losses by document, by position and by frequency."""
        losses_N = losses_N.to(self.sums.device)
        kinds = {"document": batch.documents_N, "position": batch.positions_N}
        kinds |= {"third": self.thirds_V[batch.targets_N], "octave": self.octaves_V[batch.targets_N]}
        for kind, ids_N in kinds.items():
            self._add(f"{kind}_nats", ids_N, losses_N)
            self._add(f"{kind}_tokens", ids_N, torch.ones_like(losses_N))
        if self.settings.token_losses:
            self._add("token_nats", self._tokens_of(batch), losses_N)

    def update_predictions(self, predictions: TokenPredictions, batch: TokenBatch) -> None:
        """Add hits and entropies by document, and keep each token's hit and greatest probability."""
        hits_N = predictions.hits_N.to(predictions.top_N.dtype)
        self._add("document_hits", batch.documents_N, hits_N)
        self._add("document_entropy", batch.documents_N, predictions.entropies_N)
        self._add("token_hits", self._tokens_of(batch), hits_N)
        self._add("token_top", self._tokens_of(batch), predictions.top_N)

    def _add(self, name: str, ids_N: torch.Tensor, values_N: torch.Tensor) -> None:
        # In place: some have an entry for each token of the text.
        total = getattr(self.sums, name)
        total.index_add_(0, ids_N.to(total.device), values_N.to(total.device))

    def _tokens_of(self, batch: TokenBatch) -> torch.Tensor:
        """Return the index of each of a batch's tokens among those of all documents."""
        assert batch.places_N is not None
        return self.firsts_M[batch.documents_N.to(self.firsts_M.device)] + batch.places_N.to(self.firsts_M.device)

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
        thirds = dict(zip(THIRDS, (sums["third_nats"] / sums["third_tokens"]).tolist(), strict=True))
        metrics |= {
            "accuracy": float(sums["document_hits"].sum()) / tokens,
            "entropy": float(sums["document_entropy"].sum()) / tokens,
            "calibration_error": calibration_error(sums["token_top"].numpy(), sums["token_hits"].numpy()),
            **{f"loss_{third}": value for third, value in thirds.items()},
        }
        # Right after `loss` lm-eval writes its own "N/A" under this key, which a later entry replaces.
        metrics |= stderr_by_document("loss", nats_M, tokens_M)
        metrics |= stderr_by_document("accuracy", sums["document_hits"], tokens_M)
        metrics |= stderr_by_document("entropy", sums["document_entropy"], tokens_M)
        reasons = {
            f"loss_{third}": f"no token of the vocabulary lies in the {third} third of these {int(tokens)} tokens: "
            "measure more text"
            for third, value in thirds.items()
            if math.isnan(value)
        }
        by_token = {}
        if self.settings.token_losses:
            ids_N = np.concatenate([document.tokens for document in self.corpus.documents]).astype(np.int32)
            by_token = {"by_token": sums["token_nats"].numpy().astype(np.float32), "by_token_ids": ids_N}
        return Measurement.with_gaps(
            metrics,
            reasons,
            arrays={
                "by_position": (sums["position_nats"] / sums["position_tokens"]).numpy(),
                "by_position_tokens": sums["position_tokens"].long().numpy(),
                "by_document": nats_M.numpy(),
                "by_document_tokens": tokens_M.long().numpy(),
                "by_document_bytes": self.corpus.document_bytes(),
                "by_frequency": (sums["octave_nats"] / sums["octave_tokens"]).numpy(),
                "by_frequency_tokens": sums["octave_tokens"].long().numpy(),
                **by_token,
            },
        )


def calibration_error(top_N: np.ndarray, hits_N: np.ndarray) -> float:
    """Return Σ_b |Σ hits − Σ top|/N over 15 bins b of equally many tokens, in the order of ``top``.

    ``top`` is the probability of each token's most probable successor. Of equal ones the first in the text comes first.
    """
    order = np.argsort(top_N, kind="stable")
    gaps = np.array_split((hits_N - top_N)[order], CALIBRATION_BINS)
    return math.fsum(abs(float(gap.sum())) for gap in gaps) / len(top_N)
