"""The logits that unigrams and bigrams expect at a state, mostly without computing the logits.

Shapes: N tokens of a batch, D width, V rows of the head, C contexts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from lmsat_plugin.lazy import torch
from lmsat_plugin.model.lm_head import Head
from lmsat_plugin.model.spectrum import device_of_float64, entropy, in_float64
from lmsat_plugin.ngrams.bigrams import BigramCounts

_BLOCK = 8192
_CAPPED_TOKENS = 256


@dataclass(frozen=True)
class ExpectedLogits:
    """Σ q z for q the unigrams and what follows a token, z the logits of a state.

    Logits without a cap are linear in the head's rows: then Σ q z = h·(Wᵀ q) + b·q, times the scale.
    """

    head: Head
    q_V: torch.Tensor
    q_CV: csr_array
    row_of_V: torch.Tensor
    """The row of a context in ``q_CV``, −1 for a token that is none."""
    unigram_entropy: float
    entropy_C: torch.Tensor
    mean_D: torch.Tensor | None = None
    """Wᵀ q of the unigrams, and ``mean_CD`` of each context; None for a head with a cap."""
    mean_CD: torch.Tensor | None = None
    bias_C: torch.Tensor | None = None
    bias: float = 0.0

    @classmethod
    def of(cls, counts: BigramCounts, head: Head) -> ExpectedLogits:
        """Prepare what does not depend on states."""
        device = head.weight_VD.device
        place, contexts = device_of_float64(device), len(counts.contexts_C)
        q_V = torch.from_numpy(counts.unigrams_V / max(counts.tokens, 1)).to(place)
        sums_C = counts.successors_CV.sum(1)
        q_CV = csr_array(counts.successors_CV.multiply(1 / np.maximum(sums_C, 1)[:, None]))
        row_of_V = np.full(len(q_V), -1)
        row_of_V[counts.contexts_C] = np.arange(contexts)
        entropy_C = [entropy(q_CV.data[a:b]) for a, b in zip(q_CV.indptr[:-1], q_CV.indptr[1:], strict=True)]
        expected = cls(
            head=head,
            q_V=q_V,
            q_CV=q_CV,
            row_of_V=torch.from_numpy(row_of_V).to(device),
            unigram_entropy=entropy(counts.unigrams_V),
            entropy_C=torch.tensor(entropy_C or [0.0], dtype=torch.float64, device=place),
        )
        if head.softcap is not None:
            return expected
        mean_D = torch.zeros(head.weight_VD.shape[1], dtype=torch.float64, device=place)
        mean_CD = torch.zeros(max(contexts, 1), len(mean_D), dtype=torch.float64, device=place)
        by_column = q_CV.tocsc()
        for start in range(0, len(q_V), _BLOCK):
            rows_VD = in_float64(head.weight_VD[start : start + _BLOCK])
            mean_D += q_V[start : start + _BLOCK] @ rows_VD
            if contexts:
                part = by_column[:, start : start + _BLOCK].tocoo()
                places = torch.from_numpy(np.stack([part.row, part.col]).astype(np.int64))
                sparse = torch.sparse_coo_tensor(
                    places, torch.from_numpy(part.data), part.shape, check_invariants=False
                )
                mean_CD += torch.sparse.mm(sparse.to(place), rows_VD)
        bias, bias_C = 0.0, None
        if head.bias_V is not None:
            bias_V = in_float64(head.bias_V).cpu().numpy()
            bias = float(q_V.cpu().numpy() @ bias_V)
            bias_C = torch.from_numpy(np.resize(q_CV @ bias_V, max(contexts, 1))).to(place)
        mean_D, mean_CD = (mean.to(device, head.dtype) for mean in (mean_D, mean_CD))
        return replace(expected, mean_D=mean_D, mean_CD=mean_CD, bias=bias, bias_C=bias_C)

    def at(self, states_ND: torch.Tensor, inputs_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return Σ q z of the unigrams and of the context, H(q) of the context, and whether there is one; float64.

        ``inputs_N`` are the contexts. Without one the second and the third have no meaning.
        """
        rows_N = self.row_of_V[inputs_N.to(self.row_of_V.device)]
        covered_N = in_float64(rows_N >= 0)
        rows_N = rows_N.clamp_min(0)
        states_ND = states_ND.to(self.head.weight_VD.device)
        entropy_N = self.entropy_C[rows_N.to(self.entropy_C.device)]
        if self.mean_D is None or self.mean_CD is None:
            parts = zip(*self._through_logits(states_ND, rows_N, covered_N), strict=True)
            unigram_N, bigram_N = (torch.cat(part) for part in parts)
            return unigram_N, bigram_N, entropy_N, covered_N
        states_ND = states_ND.to(torch.promote_types(states_ND.dtype, self.head.dtype))
        unigram_N = in_float64(states_ND @ self.mean_D.to(states_ND.dtype)) + self.bias
        bigram_N = torch.cat(
            [
                in_float64((part_ND * self.mean_CD[part_N]).sum(1))
                for part_ND, part_N in zip(states_ND.split(_BLOCK), rows_N.split(_BLOCK), strict=True)
            ]
        )
        if self.bias_C is not None:
            bigram_N = bigram_N + self.bias_C[rows_N.to(self.bias_C.device)]
        return unigram_N * self.head.scale, bigram_N * self.head.scale, entropy_N, covered_N

    def _through_logits(
        self, states_ND: torch.Tensor, rows_N: torch.Tensor, covered_N: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the first two of `at` for some tokens at a time, from all their logits."""
        head = self.head
        for part_ND, part_N, own_N in zip(
            *(each.split(_CAPPED_TOKENS) for each in (states_ND, rows_N, covered_N)), strict=True
        ):
            logits_NV = head.logits(head.prepare(part_ND))
            q_NV = self.q_CV[part_N.cpu().numpy()] if self.q_CV.shape[0] else csr_array(tuple(logits_NV.shape))
            tokens = torch.from_numpy(np.repeat(np.arange(len(part_N)), np.diff(q_NV.indptr))).to(logits_NV.device)
            columns = torch.from_numpy(q_NV.indices.astype(np.int64)).to(logits_NV.device)
            found = in_float64(logits_NV[tokens, columns])
            weighted = found * torch.from_numpy(q_NV.data).to(found.device)
            bigram_N = torch.zeros_like(own_N).index_add_(0, tokens.to(own_N.device), weighted)
            yield in_float64(logits_NV @ self.q_V.to(logits_NV)), bigram_N
