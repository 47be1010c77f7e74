"""How much rank does the LM head need? Truncated and trained heads of several ranks, on the same text.

Shapes: N tokens, D width, V rows of the head, K ranks, M documents.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import check_writable, safe_name
from lmsat_plugin.model.cross_entropy import score_tokens
from lmsat_plugin.model.head_files import save_restricted_head
from lmsat_plugin.model.low_rank import Truncation, nested_losses
from lmsat_plugin.model.spectrum import triangle
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext, Sums, TokenBatch, TrainingStream
from lmsat_plugin.probes.loss import stderr_of
from lmsat_plugin.probes.rank_head.settings import SEARCHED, SEARCHED_SHARE, RankHeadSettings, default_rate
from lmsat_plugin.probes.rank_head.training import HeadTrainer, LowRankHead
from lmsat_plugin.probes.rank_head.training_state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lmsat_plugin.text.corpora import CorpusSettings


logger = logging.getLogger(__name__)


class RankHeadProbe(Probe[RankHeadSettings]):
    """Losses of rank-restricted LM heads (Godey et al. 2024, Sec. 5.1, Figs. 6 and 8).

    Metrics: ``full_loss``, the model's own, nats per token; per rank r ``truncated_loss_rank_r`` of the best
    approximation of the head in the Frobenius norm (as ``head_rank=r``), ``weighted_truncated_loss_rank_r`` of the
    best in the metric of the states' second moment, and with ``train_tokens`` ``loss_rank_r``,
    ``perplexity_rank_r`` and ``accuracy_rank_r`` of a head W = A B trained on other text, the model frozen;
    ``diverged_rank_r`` = 1 in their place where the training diverged. Standard errors by document.
    Arrays: ``ranks``; ``by_document_tokens`` [M]; sums over documents in nats, ``full_by_document`` [M],
    ``truncated_by_document``, ``weighted_truncated_by_document``, ``trained_by_document``, and
    ``trained_hits_by_document`` [K, M]; ``truncated_bound``, ``weighted_truncated_bound`` [K], upper bounds of the
    truncated heads' losses above the full one, nats (Theorem 5.3, see `Truncation.error`); ``singular_values`` and
    ``weighted_singular_values`` [D]; ``training_loss`` [steps, K], ``learning_rates`` [K].
    """

    name = "rank_head"
    needs = Need.FINAL_STATES | Need.TOKEN_LOSSES | Need.TRAINING_STREAM
    settings_type = RankHeadSettings

    @classmethod
    def other_corpora(
        cls, settings: RankHeadSettings, corpus: CorpusSettings
    ) -> Mapping[str, CorpusSettings]:
        """Return the corpus to train on, if the settings name one."""
        if settings.train_corpus is None:
            return {}
        text = {"corpus": settings.train_corpus, "max_tokens": settings.train_tokens}
        return {"train_corpus": corpus.model_copy(update=text)}

    @torch.no_grad()
    def prepare(self, context: ProbeContext) -> None:
        """Decompose the head, in the metric of the training text, and train the heads."""
        assert context.head is not None
        self.head = context.head
        width = self.head.weight_VD.shape[1]
        powers = (2**k for k in range(width.bit_length()) if 2**k <= width)
        self.ranks = tuple(sorted(self.settings.ranks or {width, *powers}))
        if self.ranks[-1] > width:
            raise LmsatError(
                f"ranks={self.ranks[-1]} is above the width of this head: give ranks from 1 to {width}"
            )
        self.details: dict[str, Any] = {}
        self.trained: list[LowRankHead] = []
        self.training_loss: list[list[float]] = []
        self.state: TrainingState | None = None
        if not torch.isfinite(self.head.weight_VD).all():
            raise LmsatError("the LM head's weight is not finite: the checkpoint is broken; leave it out")
        self.triangle_KD = triangle(self.head.weight_VD)
        self.truncations = {"truncated": Truncation.of(self.triangle_KD)}
        stream = self._open(context)
        if stream is not None:
            moment_DD = second_moment(stream, width, context.synchronise)
            self.truncations["weighted_truncated"] = Truncation.of(self.triangle_KD, moment_DD)
            self.details["training_text"] = stream.corpus.provenance
        self.expanded = {
            name: truncation.expanded(self.head.weight_VD, self.head.dtype)
            for name, truncation in self.truncations.items()
        }
        if stream is not None and self.settings.train_tokens is not None:
            self._train(context, stream)
        if stream is not None and stream.rank == 0 and self.settings.heads is not None:
            self._save_heads(Path(self.settings.heads), context.name)

    def _open(self, context: ProbeContext) -> TrainingStream | None:
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

    def _train(self, context: ProbeContext, stream: TrainingStream) -> None:
        settings, batch = self.settings, self.settings.step_tokens
        if self.head.tied:
            logger.warning("The LM head is tied to the embeddings: the heads are trained apart from them")
        rates = self._rates(context, stream)
        state = TrainingState(self._state_path(context, stream, rates), context.synchronise)
        trainer = self._trainer(context, rates)
        trainer.train(stream, batch, seed=settings.train_seed, state=state)
        trainer.finish()
        self.trained, self.training_loss = list(trainer.heads), trainer.losses
        self.details["training"] = {
            "tokens": stream.corpus.n_tokens,
            "steps": len(self.training_loss),
            "batch_tokens": batch,
            "learning_rates": list(rates),
        }
        if stream.rank == 0:
            self.state = state

    def _rates(self, context: ProbeContext, stream: TrainingStream) -> tuple[float, ...]:
        given, width = self.settings.learning_rate, self.head.weight_VD.shape[1]
        if isinstance(given, tuple) and len(given) != len(self.ranks):
            raise LmsatError(
                f"learning_rate has {len(given)} values for {len(self.ranks)} ranks: give one, or one for each"
            )
        if isinstance(given, tuple):
            return tuple(
                rate for _, rate in sorted(zip(self.settings.ranks or self.ranks, given, strict=True))
            )
        if isinstance(given, float):
            return (given,) * len(self.ranks)
        batch = self.settings.step_tokens
        defaults = [default_rate(self.settings.init, rank, width, batch) for rank in self.ranks]
        if given is None:
            return tuple(defaults)
        found = []
        for factor in SEARCHED:
            trainer = self._trainer(context, [rate * factor for rate in defaults])
            trainer.train(stream, batch, seed=self.settings.train_seed, share=SEARCHED_SHARE)
            last = max(1, len(trainer.losses) // 4)
            found.append(np.mean(trainer.losses[-last:], axis=0))
        best = np.argmin(np.nan_to_num(found, nan=np.inf), axis=0)
        return tuple(rate * SEARCHED[index] for rate, index in zip(defaults, best, strict=True))

    def _trainer(self, context: ProbeContext, rates: Sequence[float]) -> HeadTrainer:
        device, dtype = self.head.weight_VD.device, self.head.dtype
        rows, width = self.head.weight_VD.shape
        if self.settings.init == "svd":
            # In these coordinates the states' second moment is the identity.
            into_DD = self.truncations["weighted_truncated"].reduce_DD.T.to(device, dtype)
            expanded_VD = self.expanded["weighted_truncated"]
            lefts = [expanded_VD[:, :r].clone(memory_format=torch.contiguous_format) for r in self.ranks]
            rights = [torch.eye(rank, width, device=device, dtype=dtype) for rank in self.ranks]
        else:
            into_DD = torch.eye(width, device=device, dtype=dtype)
            generator = torch.Generator().manual_seed(self.settings.train_seed)
            normal = [
                [torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((rows, r), (r, width))]
                for r in self.ranks
            ]
            lefts = [left.to(device) for left, _ in normal]
            rights = [right.to(device) for _, right in normal]
        self.into_DD = into_DD
        heads = [LowRankHead(*parts) for parts in zip(lefts, rights, rates, strict=True)]
        return HeadTrainer(
            heads,
            self.head,
            lambda states_ND: states_ND.to(device, dtype) @ into_DD,
            optimizer=self.settings.optimizer,
            weight_decay=self.settings.weight_decay,
            synchronise=context.synchronise,
        )

    def _state_path(self, context: ProbeContext, stream: TrainingStream, rates: Sequence[float]) -> Path:
        """Return the file of this very training: of this model, text and settings."""
        text = stream.corpus.provenance
        made_of = [self.settings.model_dump(exclude={"heads"}), self.ranks, rates, self.settings.step_tokens]
        made_of += [text["sha256"], text["tokens"], text["window"], text["prefix_token"]]
        digest = hashlib.sha256(json.dumps(made_of).encode())
        for name, parameter in context.model.named_parameters():
            # Training changes nearly all of a model's weights: some of each tell models apart.
            some = parameter.detach().flatten()[:: max(1, parameter.numel() // 256)]
            digest.update(name.encode() + some.double().cpu().numpy().tobytes())
        folder = Path(self.settings.heads) if self.settings.heads else cache_folder() / "heads"
        return folder / f"training_{digest.hexdigest()[:16]}.safetensors"

    def _save_heads(self, folder: Path, name: str) -> None:
        """Write the heads that were trained, and the truncated ones in the metric of the states."""
        start, details = folder / safe_name(name), {"model": name}
        trained = {**details, "init": self.settings.init, **self.details.get("training", {})}
        for low in self.trained:
            if not low.diverged:
                right_RD = low.right_RD.double() @ self.into_DD.T.double()
                path = start.with_name(f"{start.name}__rank_{low.rank}.safetensors")
                save_restricted_head(path, low.left_VR, right_RD, {"kind": "trained", **trained})
        expanded_VD, reduce_DD = (
            self.expanded["weighted_truncated"],
            self.truncations["weighted_truncated"].reduce_DD,
        )
        for rank in self.ranks:
            path = start.with_name(f"{start.name}__truncated_rank_{rank}.safetensors")
            save_restricted_head(
                path, expanded_VD[:, :rank], reduce_DD[:rank], {"kind": "weighted", **details}
            )

    def start(self, context: ProbeContext) -> None:
        """Make the sums empty."""
        assert context.corpus is not None
        documents, ranks = len(context.corpus.documents), len(self.ranks)
        width = self.head.weight_VD.shape[1]
        curves = [*self.truncations, *(("trained", "trained_hits") if self.trained else ())]
        self.sums = Sums(
            context,
            full=(documents,),
            tokens=(documents,),
            moment=(width, width),
            **dict.fromkeys(curves, (ranks, documents)),
        )

    def update_final(self, states_ND: torch.Tensor, batch: TokenBatch) -> None:
        """Add the batch's losses by head and document."""
        self.sums.update(moment=_products(states_ND))
        for name, truncation in self.truncations.items():
            losses_KN = nested_losses(
                states_ND, batch.targets_N, truncation, self.expanded[name], self.ranks, self.head
            )
            self._add(batch, **{name: losses_KN})
        if self.trained:
            prepared_ND = states_ND.to(self.into_DD) @ self.into_DD
            losses, hits = [], []
            for low in self.trained:
                reduced_NR = prepared_ND @ low.right_RD.T
                scores = list(score_tokens(reduced_NR, batch.targets_N, low.scoring(self.head)))
                losses.append(torch.cat([score.losses_N for score in scores]))
                hits.append(torch.cat([score.hits_N for score in scores]))
            self._add(batch, trained=torch.stack(losses), trained_hits=torch.stack(hits))

    def update_losses(self, losses_N: torch.Tensor, batch: TokenBatch) -> None:
        """Add the model's own losses."""
        self._add(batch, full=losses_N, tokens=torch.ones_like(losses_N))

    def _add(self, batch: TokenBatch, **values_XN: torch.Tensor) -> None:
        documents = self.sums.full.shape[0]
        self.sums.update(
            **{
                name: values.new_zeros(*values.shape[:-1], documents, dtype=torch.float64).index_add_(
                    -1, batch.documents_N.to(values.device), values.double()
                )
                for name, values in values_XN.items()
            }
        )

    def finish(self) -> Measurement:
        """Divide the sums once."""
        sums = self.sums.totals()
        tokens_M = sums["tokens"]
        metrics: dict[str, float] = {}

        def add(metric: str, sums_M: torch.Tensor) -> float:
            metrics[metric] = float(sums_M.sum() / tokens_M.sum())
            metrics.update(stderr_of(metric, sums_M, tokens_M))
            return metrics[metric]

        if not math.isfinite(add("full_loss", sums["full"])):
            raise LmsatError("the model's loss is not finite: the checkpoint is broken; leave it out")
        for index, rank in enumerate(self.ranks):
            for name in self.truncations:
                add(f"{name}_loss_rank_{rank}", sums[name][index])
            if self.trained and self.trained[index].diverged:
                metrics[f"diverged_rank_{rank}"] = 1
            elif self.trained:
                loss = add(f"loss_rank_{rank}", sums["trained"][index])
                metrics[f"perplexity_rank_{rank}"] = math.exp(loss) if loss < 700 else math.inf
                add(f"accuracy_rank_{rank}", sums["trained_hits"][index])
        if self.state is not None:
            # Not before: a kill while the heads are measured costs no training either.
            self.state.remove()
        return Measurement(metrics, self._arrays(sums), self.details)

    def _arrays(self, sums: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        arrays = {
            "ranks": np.array(self.ranks),
            "by_document_tokens": sums["tokens"].long().numpy(),
            **{
                f"{name}_by_document": value.numpy()
                for name, value in sums.items()
                if name not in ("tokens", "moment")
            },
        }
        moment_DD = sums["moment"] / sums["tokens"].sum()
        for name, truncation in self.truncations.items():
            error_K = truncation.error(self.triangle_KD, moment_DD, self.ranks)
            arrays[f"{name}_bound"] = (math.sqrt(2) * abs(self.head.scale) * error_K).cpu().numpy()
            arrays[name.replace("truncated", "singular_values")] = truncation.singular_D.cpu().numpy()
        if self.trained:
            arrays["training_loss"] = np.array(self.training_loss)
            arrays["learning_rates"] = np.array([head.learning_rate for head in self.trained])
        return arrays


def second_moment(stream: TrainingStream, width: int, synchronise: bool) -> torch.Tensor:
    """Return E[h hᵀ] of final states of the stream's first tokens, float64, shape [D, D]."""
    windows = stream.rounds(_moment_tokens(width), seed=0)[0]
    states_ND = stream.states(windows).states_ND
    moment_DD = _products(states_ND) if len(states_ND) else torch.zeros(width, width, dtype=torch.float64)
    if synchronise:
        torch.distributed.all_reduce(moment_DD)
    return moment_DD / sum(window.scored for window in windows)


def _moment_tokens(width: int) -> int:
    return max(16_384, 8 * width)


def _products(states_ND: torch.Tensor) -> torch.Tensor:
    """Return Σ h hᵀ in float64."""
    device = torch.device("cpu") if states_ND.device.type == "mps" else states_ND.device
    states_ND = states_ND.to(device, torch.float64)
    return states_ND.T @ states_ND


def cache_folder() -> Path:
    """Return where what outlives a run is kept: ``LMSAT_CACHE``, or ``lmsat`` in the user's cache."""
    given = os.environ.get("LMSAT_CACHE")
    return (
        Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmsat"
    )
