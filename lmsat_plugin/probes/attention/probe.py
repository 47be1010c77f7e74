"""The probe of attention: sinks, entropy, heads that attend to the previous token, induction heads.

Shapes: B sequences, L layers, H heads, T tokens of a sequence.
"""

from __future__ import annotations

import numpy as np

from lmsat_plugin.errors import DivergedError
from lmsat_plugin.lazy import torch
from lmsat_plugin.measurement.execution import Processes
from lmsat_plugin.model.anatomy import position_limit
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext, Sums
from lmsat_plugin.probes.attention.weights import NoWeightsError, attention_weights, eager_attention
from lmsat_plugin.settings import Settings
from lmsat_plugin.text.tokenization import TokenizedCorpus

LENGTH = 64
"""Tokens of a sequence, the prefix token among them (Gu et al. 2025)."""
SEQUENCES = 100
REPEATED_SEQUENCES = 16
_HALF = (LENGTH - 1) // 2
"""Random tokens that are repeated once, behind the prefix token."""
THRESHOLD = 0.3
"""ε of Gu et al. 2025; here also of heads that attend to the previous token and of induction heads."""
_BATCH = 8
_METRICS = ("sink_rate", "attention_entropy", "previous_token_share", "induction_score", "induction_share")
_OF_TEXT = ("sinks", "entropy", "previous")


class AttentionProbe(Probe[Settings]):
    """What attention heads look at, on sequences of 64 tokens with eager attention.

    Text: up to 100 stretches of 63 tokens of the corpus, spread over all that it has, each behind the prefix token. A
    is a head's attention, query i to key k, both from 1. ``sink_rate``: the share of sequences, layers and heads in
    which the mean of A[i, 1] over i = 1 ... 64 exceeds 0.3 (Gu et al. 2025, 2410.10781, Sink₁^ε; the indicator is taken
    for each sequence). ``attention_entropy``: the entropy of A[i, 1 ... i] over ln i, the mean over queries i ≥ 2,
    sequences and heads: 0 for attention to one token, 1 for equal attention to all. ``previous_token_share``: the share
    of heads whose mean of A[i, i − 1], i ≥ 2, exceeds 0.3.

    Repeated tokens: 16 sequences of the prefix token and 31 different random tokens twice. A head's induction score is
    its mean attention from a token of the second half to the one behind its first occurrence (prefix matching, Olsson
    et al. 2022); ``induction_score`` is the greatest head's, ``induction_share`` the share of heads above 0.3.

    All are null for a model without attention weights, for windows shorter than 64 tokens, and the first three for text
    in which no document has 63 tokens. Arrays [L, H], NaN where a layer has fewer heads: ``sink_by_head``,
    ``entropy_by_head``, ``previous_token_by_head``, ``induction_by_head``.
    """

    name = "attention"
    cost = "a pass over 7,400 tokens, without LM head"
    needs = Need.WEIGHTS | Need.TOKENS

    def start(self, context: ProbeContext) -> None:
        """Cut the sequences."""
        assert context.corpus is not None
        self.context, self.sequences_BT = context, text_sequences(context.corpus)
        self.repeated_BT = repeated_sequences(context)

    def finish(self) -> Measurement:
        """Run the passes, each process its share. Raises `DivergedError` for weights that are not finite."""
        context = self.context
        window = min(context.corpus.window if context.corpus else LENGTH, position_limit(context.model) or LENGTH)
        if window < LENGTH:
            return self._nothing(f"the window of {window} tokens is shorter than the {LENGTH} of a sequence")
        if getattr(context.model, "_device_mesh", None) is not None:
            return self._nothing("each process holds a part of the heads: run without tensor parallelism")
        try:
            with eager_attention(context.model):
                shape = self._shape()
                self.sums = Sums(context, **dict.fromkeys((*_OF_TEXT, "induction"), shape))
                for name, sequences_BT in (("text", self.sequences_BT), ("repeated", self.repeated_BT)):
                    self._pass(sequences_BT, repeated=name == "repeated")
        except NoWeightsError as error:
            return self._nothing(str(error))
        return self._measurement()

    def _nothing(self, reason: str) -> Measurement:
        return Measurement.with_gaps({}, dict.fromkeys(_METRICS, reason), {})

    def _shape(self) -> tuple[int, int]:
        """Return the number of layers with weights, and the greatest number of heads of one."""
        weights = attention_weights(self.context.model, self.repeated_BT[:1, :2])
        shape = len(weights), max(of_layer.shape[1] for of_layer in weights)
        self.has_head_LH = np.arange(shape[1]) < np.array([[of_layer.shape[1]] for of_layer in weights])
        return shape

    def _pass(self, sequences_BT: torch.Tensor, *, repeated: bool) -> None:
        processes = Processes.current() if self.context.synchronise else Processes()
        batches = sequences_BT.split(_BATCH) if len(sequences_BT) else ()
        for batch_BT in batches[processes.rank :: processes.size]:
            for layer, weights in enumerate(attention_weights(self.context.model, batch_BT)):
                values = {"induction": induction(weights)} if repeated else of_text(weights)
                for name, values_BH in values.items():
                    total = getattr(self.sums, name)
                    total[layer, : values_BH.shape[1]] += values_BH.sum(0).to(total.device).to(total.dtype)

    def _measurement(self) -> Measurement:
        sums, texts = self.sums.totals(), len(self.sequences_BT)
        counts = {**dict.fromkeys(_OF_TEXT, texts), "induction": len(self.repeated_BT)}
        means = {
            name: np.where(self.has_head_LH, value.numpy() / max(counts[name], 1), np.nan)
            for name, value in sums.items()
        }
        if not np.isfinite(means["induction"][self.has_head_LH]).all():
            raise DivergedError("the attention weights are not finite")
        heads = means["induction"][self.has_head_LH]
        metrics = {
            "sink_rate": float(means["sinks"][self.has_head_LH].mean()),
            "attention_entropy": float(means["entropy"][self.has_head_LH].mean()),
            "previous_token_share": float((means["previous"][self.has_head_LH] > THRESHOLD).mean()),
            "induction_score": float(heads.max()),
            "induction_share": float((heads > THRESHOLD).mean()),
        }
        arrays = {"induction_by_head": means["induction"]}
        reasons = {}
        if texts:
            arrays |= {
                "sink_by_head": means["sinks"],
                "entropy_by_head": means["entropy"],
                "previous_token_by_head": means["previous"],
            }
        else:
            why = f"no document has the {LENGTH - 1} tokens of a sequence: give longer text"
            reasons = dict.fromkeys(_METRICS[:3], why)
        return Measurement.with_gaps(metrics, reasons, arrays, {"sequences": texts})


def text_sequences(corpus: TokenizedCorpus) -> torch.Tensor:
    """Return up to 100 sequences of the text, spread evenly, each behind the prefix token, shape [B, 64]."""
    own = LENGTH - 1
    stretches = [
        document.tokens[start : start + own]
        for document in corpus.documents
        for start in range(0, len(document.tokens) - own + 1, own)
    ]
    places = np.linspace(0, len(stretches) - 1, SEQUENCES).round().astype(int)
    chosen = np.unique(places) if stretches else places[:0]
    rows = [np.concatenate([[corpus.prefix], stretches[index]]) for index in chosen]
    return torch.from_numpy(np.array(rows, dtype=np.int64).reshape(-1, LENGTH))


def repeated_sequences(context: ProbeContext) -> torch.Tensor:
    """Return sequences of the prefix token and different random tokens twice, always the same, shape [B, 63].

    The tokens are those of the tokenizer that are not special; where they are too few, some occur several times.
    """
    assert context.corpus is not None
    special = {*context.tokenizer.all_special_ids, context.corpus.prefix}
    tokens = np.array([token for token in range(context.vocab_rows) if token not in special] or [0])
    draws = np.random.default_rng(0)
    rows = []
    for _ in range(REPEATED_SEQUENCES):
        half = draws.choice(tokens, _HALF, replace=len(tokens) < _HALF)
        rows.append(np.concatenate([[context.corpus.prefix], half, half]))
    return torch.from_numpy(np.array(rows, dtype=np.int64))


def of_text(weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return by sequence and head, [B, H]: whether there is a sink, the entropy, the attention to the previous token.

    ``weights`` is [B, H, T, T].
    """
    keys_T = torch.arange(1, weights.shape[-1] + 1, device=weights.device, dtype=weights.dtype)
    entropies = torch.special.entr(weights).sum(-1)[..., 1:] / keys_T[1:].log()
    return {
        "sinks": (weights[..., 0].mean(-1) > THRESHOLD).to(weights.dtype),
        "entropy": entropies.mean(-1),
        "previous": weights.diagonal(-1, dim1=-2, dim2=-1).mean(-1),
    }


def induction(weights: torch.Tensor) -> torch.Tensor:
    """Return by sequence and head, [B, H], the attention from the second half to what followed the first time."""
    half = (weights.shape[-1] - 1) // 2
    # Query 1 + half + j, whose token stood at 1 + j first, looks at 2 + j.
    return weights.diagonal(1 - half, dim1=-2, dim2=-1)[..., 2:].mean(-1)
