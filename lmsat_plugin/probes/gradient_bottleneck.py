"""The probe of the gradient's bottleneck: how much of the logits' gradient the LM head cannot pass back.

Shapes: N tokens, D width, V rows of the head, K head rank, M documents.
"""

from __future__ import annotations

from lmsat_plugin.errors import DivergedError
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.cross_entropy import tile_shape
from lmsat_plugin.model.spectrum import in_float64
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext, Sums, TokenBatch
from lmsat_plugin.probes.head_tokens import HeadTokensSettings, part_of, spread
from lmsat_plugin.probes.loss import stderr_by_document


class GradientBottleneckProbe(Probe[HeadTokensSettings]):
    """The share of the logits' gradient outside the column space of the head (Godey and Artzi 2026, 2603.10145).

    For each token g = ∂(−log p)/∂(W h) = softmax(z) − e has V entries, of which Wᵀ g goes back into the model: the
    part of g outside the column space of W is lost. The paper gives the share in words; the definition here is
    ‖(I − P) g‖ / ‖g‖ with P the projector on the column space of W, all rows, padding included. For capped logits,
    g includes the slope of the cap.

    Metrics: ``suppressed_norm_share``, the mean of that over tokens, with its standard error by document;
    ``suppressed_energy_share`` = Σ ‖(I − P) g‖² / Σ ‖g‖² over tokens. Both are of ``head_tokens`` tokens, spread over
    the text.
    """

    name = "gradient_bottleneck"
    cost = "a forward pass, and a second head on 8,192 tokens"
    version = 2
    settings_type = HeadTokensSettings
    needs = Need.FINAL_STATES | Need.TOKEN_LOSSES

    def prepare(self, context: ProbeContext) -> None:
        """Make an orthogonal basis of the head's column space, shape [V, K]."""
        assert context.head is not None
        self.head = context.head
        singular_K, _ = self.head.decomposition
        least = singular_K[0] * max(self.head.weight_VD.shape) * torch.finfo(torch.float64).eps
        self.lengths_K = singular_K[singular_K > least]
        self.basis_VK = self.head.rotated_VD[:, : len(self.lengths_K)]

    def start(self, context: ProbeContext) -> None:
        """Make the sums empty."""
        assert context.corpus is not None
        documents = (len(context.corpus.documents),)
        self.stride = self.settings.stride(context.corpus.n_tokens)
        self.sums = Sums(context, share=documents, tokens=documents, lost=(), total=())

    def update_final(self, states_ND: torch.Tensor, batch: TokenBatch) -> None:
        """Keep the states until the losses come."""
        self._taken = spread(batch, self.stride)
        self._states_ND = states_ND[self._taken.to(states_ND.device)]

    def update_losses(self, losses_N: torch.Tensor, batch: TokenBatch) -> None:
        """Project the gradients, a tile of tokens × vocabulary at a time."""
        if not len(self._taken):
            return
        losses_N, batch = losses_N[self._taken.to(losses_N.device)], part_of(batch, self._taken)
        rows, _ = tile_shape(self.basis_VK.device)
        parts = [
            self._energies(self._states_ND[here], batch.targets_N[here], losses_N[here])
            for here in (slice(start, start + rows) for start in range(0, len(losses_N), rows))
        ]
        del self._states_ND
        total_N, kept_N = (torch.cat(column) for column in zip(*parts, strict=True))
        # A target of probability 1 has no gradient: its share is 0.
        lost_N = (total_N - kept_N).clamp_min(0)
        share_N = (lost_N / total_N.clamp_min(torch.finfo(torch.float64).tiny)).sqrt()
        documents_N = batch.documents_N.to(share_N.device)
        zeros_M = share_N.new_zeros(len(self.sums.share))
        self.sums.update(
            share=zeros_M.index_add(0, documents_N, share_N),
            tokens=zeros_M.index_add(0, documents_N, torch.ones_like(share_N)),
            lost=lost_N.sum(),
            total=total_N.sum(),
        )

    def _energies(
        self, states_ND: torch.Tensor, targets_N: torch.Tensor, losses_N: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ‖g‖² and ‖P g‖² of each token, float64, shape [N]."""
        head, device = self.head, self.basis_VK.device
        states_ND, targets_N = head.prepare(states_ND), targets_N.to(device)
        own_N1 = (states_ND.to(head.dtype) * head.weight_VD[targets_N].to(head.dtype)).sum(1, keepdim=True)
        own_N1 = in_float64(head.finish(own_N1, (targets_N, None)))
        log_sum_N1 = (losses_N.to(own_N1.device)[:, None] + own_N1).to(head.dtype).to(device)
        total_N = torch.zeros_like(own_N1[:, 0])
        kept_NK = states_ND.new_zeros(len(targets_N), self.basis_VK.shape[1], dtype=self.basis_VK.dtype)
        _, columns = tile_shape(device)
        for start in range(0, len(self.basis_VK), columns):
            stop = min(start + columns, len(self.basis_VK))
            logits = head.logits(states_ND, start, stop)
            slope = None if head.softcap is None else 1 - (logits / head.softcap) ** 2
            gradient = logits.sub_(log_sum_N1).exp_()
            # Of all tokens, a target elsewhere by nothing: to choose some would wait for the GPU.
            inside_N = (targets_N >= start) & (targets_N < stop)
            columns_N1 = (targets_N - start).clamp(0, stop - start - 1)[:, None]
            gradient.scatter_add_(1, columns_N1, -inside_N[:, None].to(gradient.dtype))
            if slope is not None:
                gradient *= slope
            total_N += in_float64(torch.linalg.vector_norm(gradient, dim=1)) ** 2
            kept_NK.addmm_(gradient.to(kept_NK.dtype), self.basis_VK[start:stop])
        return total_N, (in_float64(kept_NK) / self.lengths_K).square().sum(1)

    def finish(self) -> Measurement:
        """Divide the sums once."""
        sums = self.sums.totals()
        share = float(sums["share"].sum() / sums["tokens"].sum())
        if share != share:
            raise DivergedError("the model's loss is not finite")
        return Measurement(
            metrics={
                "suppressed_norm_share": share,
                **stderr_by_document("suppressed_norm_share", sums["share"], sums["tokens"]),
                "suppressed_energy_share": float(sums["lost"] / sums["total"]),
            }
        )
