"""The probe of the head rank: losses with truncated and with trained LM heads of several ranks, on the same text.

Shapes: N tokens, D width, V rows of the head, K ranks, M documents.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmsat_plugin.errors import DivergedError, LmsatError
from lmsat_plugin.files import check_writable
from lmsat_plugin.lazy import torch, without_gradients
from lmsat_plugin.model.cross_entropy import score_tokens
from lmsat_plugin.model.low_rank import NestedHeads, Truncation
from lmsat_plugin.model.spectrum import in_float64
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext, Sums, TokenBatch, TrainingStream
from lmsat_plugin.probes.head_tokens import part_of, spread
from lmsat_plugin.probes.loss import stderr_by_document
from lmsat_plugin.probes.rank_head.settings import RankHeadSettings
from lmsat_plugin.probes.rank_head.trained_heads import HeadTraining, TrainedHeads, save_heads, save_trained_heads
from lmsat_plugin.text.corpora import CorpusSettings

logger = logging.getLogger(__name__)


class RankHeadProbe(Probe[RankHeadSettings]):
    """Losses of rank-restricted LM heads (Godey et al. 2024, Sec. 5.1, Figs. 6 and 8).

    Metrics: ``full_loss``, the model's own, nats per token; per rank r ``truncated_loss_rank_r`` of the best
    approximation of the head in the Frobenius norm (as ``head_rank=r``), ``weighted_truncated_loss_rank_r`` of the
    best in the metric of the states' second moment on other text, and with ``train_tokens`` ``loss_rank_r``,
    ``perplexity_rank_r`` and ``accuracy_rank_r`` of a head W = A B trained on other text, the model frozen;
    ``diverged_rank_r`` = 1 in their place where the training diverged. All are of ``head_tokens`` tokens, spread over
    the text. Standard errors by document.
    Arrays: ``ranks``; ``by_document_tokens`` [M]; sums over documents in nats, ``full_by_document`` [M],
    ``truncated_by_document``, ``weighted_truncated_by_document``, ``trained_by_document``, and
    ``trained_hits_by_document`` [K, M]; ``truncated_bound``, ``weighted_truncated_bound`` [K], upper bounds of the
    truncated heads' losses above the full one, nats (Theorem 5.3, see `Truncation.error`); ``singular_values`` and
    ``weighted_singular_values`` [D]; ``training_loss`` [steps, K], ``learning_rates`` [K].
    """

    name = "rank_head"
    cost = "a forward pass, heads of about ten ranks on 8,192 tokens"
    version = 2
    needs = Need.FINAL_STATES | Need.TOKEN_LOSSES | Need.TRAINING_STREAM
    settings_type = RankHeadSettings

    @classmethod
    def other_corpora(cls, settings: RankHeadSettings, corpus: CorpusSettings) -> Mapping[str, CorpusSettings]:
        """Return the corpus to train on, if the settings name one."""
        if settings.train_corpus is None:
            return {}
        text = {"corpus": settings.train_corpus, "max_tokens": settings.train_tokens}
        return {"train_corpus": corpus.model_copy(update=text)}

    @without_gradients
    def prepare(self, context: ProbeContext) -> None:
        """Decompose the head, in the metric of the training text, and train the heads."""
        assert context.head is not None
        self.head = context.head
        width = self.head.weight_VD.shape[1]
        powers = (2**k for k in range(width.bit_length()) if 2**k <= width)
        self.ranks = tuple(sorted(self.settings.ranks or {width, *powers}))
        if self.ranks[-1] > width:
            raise LmsatError(f"ranks={self.ranks[-1]} is above the width of this head: give ranks from 1 to {width}")
        if not torch.isfinite(self.head.weight_VD).all():
            raise DivergedError("the LM head's weight is not finite")
        self.details: dict[str, Any] = {}
        self.trained: TrainedHeads | None = None
        self.is_first_process = True
        plain = Truncation.of(self.head)
        self.nested = {"truncated": NestedHeads(head=self.head, truncation=plain, ranks=self.ranks)}
        stream = self._open_training(context)
        if stream is not None:
            self._use_training_text(context, stream)

    def _open_training(self, context: ProbeContext) -> TrainingStream | None:
        assert context.open_training is not None
        tokens, name = self.settings.train_tokens, self.settings.train_corpus
        if self.settings.heads is not None:
            check_writable(Path(self.settings.heads))
        if tokens is not None:
            if tokens < self.settings.step_tokens:
                raise LmsatError(
                    f"train_tokens={tokens} is less than one batch of {self.settings.step_tokens}: "
                    "set it higher, or batch_tokens lower"
                )
            return context.open_training(tokens, name, tokens)
        width = self.head.weight_VD.shape[1]
        try:
            return context.open_training(_moment_tokens(width), name, 2 * width)
        except LmsatError as error:
            if name is not None:
                raise
            logger.warning("no weighted truncated heads: %s", error)
            return None

    def _use_training_text(self, context: ProbeContext, stream: TrainingStream) -> None:
        """Truncate the head in the metric of the text's states; train and save heads if the settings ask for it."""
        self.details["training_text"] = stream.corpus.provenance
        self.is_first_process = stream.rank == 0
        moment_DD = second_moment(stream, self.head.weight_VD.shape[1], context.synchronise)
        truncation = Truncation.of(self.head, moment_DD)
        weighted = NestedHeads(head=self.head, truncation=truncation, ranks=self.ranks)
        self.nested["weighted_truncated"] = weighted
        if self.settings.train_tokens is not None:
            training = HeadTraining(context=context, stream=stream, settings=self.settings, weighted=weighted)
            self.trained = training.run()
            self.details["training"] = self.trained.details(stream, self.settings)
        if self.is_first_process and self.settings.heads is not None:
            folder = Path(self.settings.heads)
            save_heads(folder, context.name, weighted)
            if self.trained is not None:
                details = {"init": self.settings.init, **self.details["training"]}
                save_trained_heads(folder, context.name, self.trained, details)

    def start(self, context: ProbeContext) -> None:
        """Make the sums empty."""
        assert context.corpus is not None
        documents, ranks = len(context.corpus.documents), len(self.ranks)
        width = self.head.weight_VD.shape[1]
        self.stride = self.settings.stride(context.corpus.n_tokens, trains=self.trained is not None)
        curves = [*self.nested, *(("trained", "trained_hits") if self.trained else ())]
        self.sums = Sums(
            context,
            full=(documents,),
            tokens=(documents,),
            moment=(width, width),
            **dict.fromkeys(curves, (ranks, documents)),
        )

    def update_final(self, states_ND: torch.Tensor, batch: TokenBatch) -> None:
        """Keep the states until the losses come."""
        self._taken = spread(batch, self.stride)
        self._states_ND = states_ND[self._taken.to(states_ND.device)]

    def update_losses(self, losses_N: torch.Tensor, batch: TokenBatch) -> None:
        """Add the batch's losses by head and document."""
        if not len(self._taken):
            return
        states_ND, batch = self._states_ND, part_of(batch, self._taken)
        losses_N = losses_N[self._taken.to(losses_N.device)]
        self._add(batch, full=losses_N, tokens=torch.ones_like(losses_N))
        self.sums.update(moment=_products(states_ND))
        for name, heads in self.nested.items():
            self._add(batch, **{name: heads.losses(states_ND, batch.targets_N, losses_N)})
        if self.trained:
            prepared_ND = states_ND.to(self.trained.into_DD) @ self.trained.into_DD
            losses, hits = [], []
            for low in self.trained.heads:
                reduced_NR = prepared_ND @ low.right_RD.T
                scores = list(score_tokens(reduced_NR, batch.targets_N, low.scoring(self.head)))
                losses.append(torch.cat([score.losses_N for score in scores]))
                hits.append(torch.cat([score.hits_N for score in scores]))
            self._add(batch, trained=torch.stack(losses), trained_hits=torch.stack(hits))
        del self._states_ND

    def _add(self, batch: TokenBatch, **values_XN: torch.Tensor) -> None:
        documents = self.sums.full.shape[0]
        self.sums.update(
            **{
                name: values.new_zeros(*values.shape[:-1], documents).index_add_(
                    -1, batch.documents_N.to(values.device), values
                )
                for name, values in ((name, in_float64(values)) for name, values in values_XN.items())
            }
        )

    def finish(self) -> Measurement:
        """Divide the sums once."""
        sums = self.sums.totals()
        tokens_M = sums["tokens"]
        metrics: dict[str, float] = {}

        def add(metric: str, sums_M: torch.Tensor) -> float:
            metrics[metric] = float(sums_M.sum() / tokens_M.sum())
            metrics.update(stderr_by_document(metric, sums_M, tokens_M))
            return metrics[metric]

        if not math.isfinite(add("full_loss", sums["full"])):
            raise DivergedError("the model's loss is not finite")
        for index, rank in enumerate(self.ranks):
            for name in self.nested:
                add(f"{name}_loss_rank_{rank}", sums[name][index])
            if self.trained and self.trained.heads[index].diverged:
                metrics[f"diverged_rank_{rank}"] = 1
            elif self.trained:
                loss = add(f"loss_rank_{rank}", sums["trained"][index])
                metrics[f"perplexity_rank_{rank}"] = math.exp(loss) if loss < 700 else math.inf
                add(f"accuracy_rank_{rank}", sums["trained_hits"][index])
        if self.trained and self.is_first_process:
            # Not earlier: an interruption while the heads are measured costs no training either.
            self.trained.state.remove()
        return Measurement(metrics=metrics, arrays=self._arrays(sums), details=self.details)

    def _arrays(self, sums: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        arrays = {
            "ranks": np.array(self.ranks),
            "by_document_tokens": sums["tokens"].long().numpy(),
            **{
                f"{name}_by_document": value.numpy() for name, value in sums.items() if name not in ("tokens", "moment")
            },
        }
        moment_DD = sums["moment"] / sums["tokens"].sum()
        for name, heads in self.nested.items():
            error_K = heads.truncation.error(self.head.triangle_KD, moment_DD, self.ranks)
            arrays[f"{name}_bound"] = (math.sqrt(2) * abs(self.head.scale) * error_K).cpu().numpy()
            arrays[name.replace("truncated", "singular_values")] = heads.truncation.singular_D.cpu().numpy()
        if self.trained:
            arrays["training_loss"] = np.array(self.trained.losses)
            arrays["learning_rates"] = np.array([head.learning_rate for head in self.trained.heads])
        return arrays


def second_moment(stream: TrainingStream, width: int, synchronise: bool) -> torch.Tensor:
    """Return E[h hᵀ] of final states of the stream's first tokens, float64, shape [D, D]."""
    windows = stream.rounds(_moment_tokens(width), seed=0)[0]
    moment_DD = _products(stream.states(windows).states_ND)
    if synchronise:
        torch.distributed.all_reduce(moment_DD)
    return moment_DD / sum(window.scored for window in windows)


def _moment_tokens(width: int) -> int:
    return max(4096, 8 * width)


def _products(states_ND: torch.Tensor) -> torch.Tensor:
    """Return Σ h hᵀ in float64."""
    states_ND = in_float64(states_ND)
    return states_ND.T @ states_ND
