"""How much the loss rises when all matrices of the layers are changed: passes over the first tokens of the text.

Shapes: N tokens of a batch, M documents.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from pydantic import PositiveInt

from lmsat_plugin.errors import DivergedError, LmsatError
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.changed_weights import restored
from lmsat_plugin.model.matrices import Matrix, matrices_of
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext, Sums, TokenBatch
from lmsat_plugin.probes.loss import stderr_by_document
from lmsat_plugin.settings import Settings
from lmsat_plugin.text.tokenization import TokenizedCorpus
from lmsat_plugin.text.windows import Window


class PassSettings(Settings):
    """The settings of probes that run passes of their own."""

    changed_tokens: PositiveInt = 16_384
    """The loss under changed weights is that of the first windows with so many tokens."""


SettingsT = TypeVar("SettingsT", bound=PassSettings)


class LossIncreaseProbe(Probe[SettingsT]):
    """The rise of the loss under changed weights. The loss without a change comes from the pass of all probes."""

    is_expensive = True
    needs = Need.TOKEN_LOSSES | Need.LOSSES_AGAIN

    def pass_windows(self, corpus: TokenizedCorpus) -> Sequence[Window]:
        """Return the first windows with so many tokens as the settings say, or all."""
        ends = np.cumsum([window.scored for window in corpus.windows])
        return corpus.windows[: int(np.searchsorted(ends, min(self.settings.changed_tokens, ends[-1]))) + 1]

    def prepare(self, context: ProbeContext) -> None:
        """Find the matrices, before there is a pass. Raises `LmsatError` where there is none, and as `matrices_of`."""
        self.matrices = [matrix for matrix in matrices_of(context.model) if matrix.is_linear]
        if not self.matrices:
            raise LmsatError(f"the model has no linear layers: leave out {self.task()}")

    def start(self, context: ProbeContext) -> None:
        """Choose the windows, and make the sums empty."""
        assert context.corpus is not None
        self.context = context
        self.windows = self.pass_windows(context.corpus)
        last = self.windows[-1]
        self._end = last.document, last.start + last.scored
        documents = (last.document + 1,)
        self.sums = Sums(context, losses=documents, tokens=documents)

    def update_losses(self, losses_N: torch.Tensor, batch: TokenBatch) -> None:
        """Add up the losses of the tokens in the chosen windows, by document."""
        assert batch.places_N is not None
        document, place = self._end
        documents_N = batch.documents_N
        inside_N = (documents_N < document) | ((documents_N == document) & (batch.places_N < place))
        # Of all tokens, those outside by nothing: to choose some would wait for the GPU.
        inside_N = inside_N.to(losses_N.dtype).to(losses_N.device)
        here_N = documents_N.clamp(max=document).to(losses_N.device)
        zeros_M = losses_N.new_zeros(document + 1)
        self.sums.update(
            losses=zeros_M.index_add(0, here_N, torch.where(inside_N > 0, losses_N, 0.0)),
            tokens=zeros_M.index_add(0, here_N, inside_N),
        )

    @abstractmethod
    def changes(self) -> Iterator[tuple[str, Callable[[Matrix], torch.Tensor]]]:
        """Yield the changes of a matrix as it was, each with its metric's name. Several of one name are averaged."""

    def finish(self) -> Measurement:
        """Run a pass for each change. Raises `DivergedError` where the loss is not finite without one."""
        assert self.context.losses_again is not None
        sums = self.sums.totals()
        if not torch.isfinite(sums["losses"]).all():
            raise DivergedError("the model's loss is not finite, also without a change of its weights")
        rises: dict[str, list[torch.Tensor]] = {}
        with torch.no_grad(), restored([matrix.weight_OI for matrix in self.matrices]) as starts:
            for name, change in self.changes():
                for matrix, start_OI in zip(self.matrices, starts, strict=True):
                    weight_OI = matrix.weight_OI
                    weight_OI.copy_(change(replace(matrix, weight_OI=start_OI.to(weight_OI.device))))
                rises.setdefault(name, []).append(self.context.losses_again(self.windows) - sums["losses"])
        metrics: dict[str, float] = {}
        reasons: dict[str, str] = {}
        for name, draws in rises.items():
            rise_M = torch.stack(draws).mean(0)
            if not torch.isfinite(rise_M).all():
                metrics[name], reasons[name] = float("nan"), "the loss is not finite under this change of the weights"
                continue
            metrics[name] = float(rise_M.sum() / sums["tokens"].sum())
            metrics |= stderr_by_document(name, rise_M, sums["tokens"])
        details = {"changed_tokens": int(sums["tokens"].sum()), "changed_matrices": len(self.matrices)}
        return Measurement.with_gaps(metrics, reasons, {}, details)
