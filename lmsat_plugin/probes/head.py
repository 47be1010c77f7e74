"""The probe of the LM head's spectrum: its entropy, effective rank and condition number."""

from __future__ import annotations

import math

from lmsat_plugin.errors import DivergedError, LmsatError
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.lm_head import Head
from lmsat_plugin.model.spectrum import divergence_from_uniform, effective_rank, singular_values
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext
from lmsat_plugin.settings import Settings


class HeadProbe(Probe[Settings]):
    """Singular values of the LM head's weight W (Godey et al. 2024, Sec. 4.2 and Figs. 4 and 5).

    Only the rows of the tokenizer's tokens count, since padding is not trained. W is not centred, and the final norm's
    gain is not multiplied in.

    Metrics: ``singular_entropy`` = KL(p‖u) with p = s²/Σs², in nats, the paper's according to its figures;
    ``singular_entropy_linear``, the same with p = s/Σs; ``effective_rank`` = exp H(s/Σs) (Roy and Vetterli
    2007); ``stable_rank`` = Σs²/s₁²; ``condition_number`` = s₁/s_K; ``top_singular_ratio`` = s₁/mean(s).
    Array: ``singular_values``, float64, falling, shape [min(rows, width)].
    """

    name = "head"
    needs = Need.HEAD

    def start(self, context: ProbeContext) -> None:
        """Take the head; nothing is computed yet."""
        self.head = context.head or Head(context.head_weight_VD, vocab_rows=context.vocab_rows)

    def finish(self) -> Measurement:
        """Decompose the weight in float64."""
        finite_V = torch.isfinite(self.head.weight_VD[: self.head.vocab_rows]).all(1)
        if not finite_V.all():
            rows = (~finite_V).nonzero().flatten().tolist()
            raise DivergedError(
                f"the LM head's weight is not finite in {len(rows)} rows, first in that of token {rows[0]}"
            )
        s = singular_values(self.head.token_triangle_KD)
        if s[0] == 0:
            raise LmsatError("the LM head's weight is zero everywhere: the checkpoint is broken; leave it out")
        return Measurement(
            metrics={
                "singular_entropy": divergence_from_uniform(s**2),
                "singular_entropy_linear": divergence_from_uniform(s),
                "effective_rank": effective_rank(s),
                "stable_rank": float((s**2).sum() / s[0] ** 2),
                "condition_number": float(s[0] / s[-1]) if s[-1] > 0 else math.inf,
                "top_singular_ratio": float(s[0] / s.mean()),
            },
            arrays={"singular_values": s},
        )
