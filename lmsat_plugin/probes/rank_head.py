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
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, field_validator

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import check_writable, safe_name
from lmsat_plugin.measurement.cross_entropy import score_tokens
from lmsat_plugin.measurement.head_training import HeadTrainer, LowRankHead, TrainingState
from lmsat_plugin.measurement.low_rank import Truncation, nested_losses
from lmsat_plugin.measurement.restricted_head import save_restricted_head
from lmsat_plugin.probes.base import Measurement, Need, Probe, Subject, Sums, TokenBatch
from lmsat_plugin.probes.loss import stderr_of
from lmsat_plugin.probes.spectrum import triangle
from lmsat_plugin.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmsat_plugin.measurement.training import TrainingStream

logger = logging.getLogger(__name__)

PAPERS_BATCH = 256 * 2048
"""Tokens a batch of Godey et al. 2024 (App. B.1), read as 256 sequences of Pythia's length."""
_STEPS = 256
# Learning rates of Godey et al. 2024, Fig. 9, by the width of the model and the rank of the head.
_PAPERS_RATES = {
    1024: {32: 2e-2, 64: 1e-2, 256: 1e-2, 512: 7e-3, 768: 5e-3, 1024: 5e-3},
    2048: {32: 2e-2, 64: 1e-2, 256: 1e-2, 512: 7e-3, 1024: 2e-3, 2048: 2e-3},
    4096: {64: 1e-2, 128: 5e-3, 512: 5e-3, 768: 2e-3, 2048: 2e-3, 3072: 1e-3, 4096: 1e-3},
}
_SEARCHED = (0.25, 0.5, 1.0, 2.0, 4.0)
_SEARCHED_SHARE = 0.1


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple | None) else [value]


class RankHeadSettings(Settings):
    """What heads, and how they are trained; without ``train_tokens`` none is."""

    ranks: Annotated[
        tuple[Annotated[int, Field(gt=0, strict=True)], ...] | None,
        BeforeValidator(_listed),
        Field(min_length=1),
    ] = None
    """Powers of two up to the head's width, and the width, by default."""
    train_tokens: PositiveInt | None = None
    """Tokens to train on; the paper's are 150,000,000."""
    train_corpus: str | None = None
    """A corpus to train on; by default the part of ``corpus`` that is not measured."""
    init: Literal["svd", "normal"] = "svd"
    """The truncated head, or independent normal entries as in the paper."""
    batch_tokens: PositiveInt | None = None
    """Tokens a step; by default what makes 256 steps, at least 1,024 and at most the paper's 524,288."""
    learning_rate: PositiveFloat | tuple[PositiveFloat, ...] | Literal["search"] | None = None
    """The peak: one, one for each rank, or ``search`` for the best of five about the default."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    train_seed: int = 0
    heads: str | None = None
    """A folder to keep the heads in, for ``--model_args head=FILE``, and the state of a training under way."""

    @field_validator("ranks")
    @classmethod
    def _different(cls, ranks: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if ranks is not None and (twice := sorted({r for r in ranks if ranks.count(r) > 1})):
            raise ValueError(f"rank {twice[0]} is given twice")
        return None if ranks is None else tuple(sorted(ranks))


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

    @torch.no_grad()
    def prepare(self, subject: Subject) -> None:
        """Decompose the head, in the metric of the training text, and train the heads."""
        assert subject.head is not None
        self.head = subject.head
        width = self.head.weight_VD.shape[1]
        self.ranks = self.settings.ranks or tuple(
            sorted({width, *(2**k for k in range(width.bit_length()) if 2**k <= width)})
        )
        if self.ranks[-1] > width:
            raise LmsatError(
                f"ranks={self.ranks[-1]} is above the width of this head: give ranks from 1 to {width}"
            )
        self.facts: dict[str, Any] = {}
        self.trained: list[LowRankHead] = []
        self.training_loss: list[list[float]] = []
        if not torch.isfinite(self.head.weight_VD).all():
            raise LmsatError("the LM head's weight is not finite: the checkpoint is broken; leave it out")
        self.triangle_KD = triangle(self.head.weight_VD)
        self.truncations = {"truncated": Truncation.of(self.triangle_KD)}
        stream = self._open(subject)
        if stream is not None:
            moment_DD = second_moment(stream, width, subject.synchronise)
            self.truncations["weighted_truncated"] = Truncation.of(self.triangle_KD, moment_DD)
            self.facts["training_text"] = stream.corpus.provenance
        self.expanded = {
            name: truncation.expanded(self.head.weight_VD, self.head.dtype)
            for name, truncation in self.truncations.items()
        }
        if stream is not None and self.settings.train_tokens is not None:
            self._train(subject, stream)

    def _open(self, subject: Subject) -> TrainingStream | None:
        assert subject.open_training is not None
        tokens, name = self.settings.train_tokens, self.settings.train_corpus
        if tokens is not None:
            if self.settings.heads is not None:
                check_writable(Path(self.settings.heads))
            if tokens < self._batch_tokens:
                raise LmsatError(
                    f"train_tokens={tokens} is less than one batch of {self._batch_tokens}: "
                    "set it higher, or batch_tokens lower"
                )
            return subject.open_training(tokens, name, tokens)
        width = self.head.weight_VD.shape[1]
        try:
            return subject.open_training(_moment_tokens(width), name, 2 * width)
        except LmsatError as error:
            if name is not None:
                raise
            logger.warning("no weighted truncated heads: %s", error)
            return None

    @property
    def _batch_tokens(self) -> int:
        default = min(PAPERS_BATCH, max(1024, (self.settings.train_tokens or 0) // _STEPS))
        return self.settings.batch_tokens or default

    def _train(self, subject: Subject, stream: TrainingStream) -> None:
        settings, batch = self.settings, self._batch_tokens
        if self.head.tied:
            logger.warning("The LM head is tied to the embeddings: the heads are trained apart from them")
        rates = self._rates(subject, stream)
        state = TrainingState(self._state_path(subject, stream, rates), subject.synchronise)
        trainer = self._trainer(subject, rates)
        trainer.train(stream, batch, seed=settings.train_seed, state=state)
        trainer.finish()
        self.trained, self.training_loss = list(trainer.heads), trainer.losses
        self.facts["training"] = {
            "tokens": stream.corpus.n_tokens,
            "steps": len(self.training_loss),
            "batch_tokens": batch,
            "learning_rates": list(rates),
        }
        if stream.processes.rank == 0:
            if settings.heads is not None:
                self._save_heads(Path(settings.heads), subject.name)
            state.remove()

    def _rates(self, subject: Subject, stream: TrainingStream) -> tuple[float, ...]:
        given, width = self.settings.learning_rate, self.head.weight_VD.shape[1]
        if isinstance(given, tuple) and len(given) != len(self.ranks):
            raise LmsatError(
                f"learning_rate has {len(given)} values for {len(self.ranks)} ranks: give one, or one for each"
            )
        if isinstance(given, tuple):
            return given
        if isinstance(given, float):
            return (given,) * len(self.ranks)
        batch = self._batch_tokens
        defaults = [default_rate(self.settings.init, rank, width, batch) for rank in self.ranks]
        if given is None:
            return tuple(defaults)
        found = []
        for factor in _SEARCHED:
            trainer = self._trainer(subject, [rate * factor for rate in defaults])
            trainer.train(stream, batch, seed=self.settings.train_seed, share=_SEARCHED_SHARE)
            last = max(1, len(trainer.losses) // 4)
            found.append(np.mean(trainer.losses[-last:], axis=0))
        best = np.argmin(np.nan_to_num(found, nan=np.inf), axis=0)
        return tuple(rate * _SEARCHED[index] for rate, index in zip(defaults, best, strict=True))

    def _trainer(self, subject: Subject, rates: Sequence[float]) -> HeadTrainer:
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
            synchronise=subject.synchronise,
        )

    def _state_path(self, subject: Subject, stream: TrainingStream, rates: Sequence[float]) -> Path:
        """Return the file of this very training: of this model, text and settings."""
        text = stream.corpus.provenance
        made_of = [self.settings.model_dump(exclude={"heads"}), self.ranks, rates, self._batch_tokens]
        made_of += [text["sha256"], text["tokens"], text["window"], text["prefix_token"]]
        digest = hashlib.sha256(json.dumps(made_of).encode())
        for name, parameter in subject.model.named_parameters():
            # Training changes nearly all of a model's weights: some of each tell models apart.
            some = parameter.detach().flatten()[:: max(1, parameter.numel() // 256)]
            digest.update(name.encode() + some.double().cpu().numpy().tobytes())
        folder = Path(self.settings.heads) if self.settings.heads else cache_folder() / "heads"
        return folder / f"training_{digest.hexdigest()[:16]}.safetensors"

    def _save_heads(self, folder: Path, name: str) -> None:
        facts = {"model": name, "init": self.settings.init, **self.facts["training"]}
        truncation = self.truncations["weighted_truncated"]
        expanded_VD = self.expanded["weighted_truncated"]
        for low in self.trained:
            rank, stem = low.rank, safe_name(name)
            right_RD = low.right_RD.double() @ self.into_DD.T.double()
            if not low.diverged:
                path = folder / f"{stem}__rank_{rank}.safetensors"
                save_restricted_head(path, low.left_VR, right_RD, {"rank": rank, **facts})
            path = folder / f"{stem}__truncated_rank_{rank}.safetensors"
            right_RD = truncation.reduce_DD[:rank]
            save_restricted_head(path, expanded_VD[:, :rank], right_RD, {"rank": rank, "model": name})

    def start(self, subject: Subject) -> None:
        """Make the sums empty."""
        assert subject.corpus is not None
        documents, ranks = len(subject.corpus.documents), len(self.ranks)
        width = self.head.weight_VD.shape[1]
        curves = [*self.truncations, *(("trained", "trained_hits") if self.trained else ())]
        self.sums = Sums(
            subject,
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
        return Measurement(metrics, self._arrays(sums), self.facts)

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


def default_rate(init: str, rank: int, width: int, batch_tokens: int) -> float:
    """Return a peak learning rate: from ``normal`` the paper's, from ``svd`` one of our own.

    The paper's (App. B.1, Fig. 9) are interpolated on log axes in rank and width, and held beyond its models. From
    ``svd`` it is 0.004 · √d / r · √(tokens of a batch / 1024), at most 0.01: found on small models and batches, it
    comes out near the paper's for the paper's.
    """
    if init == "svd":
        return min(1e-2, 4e-3 * math.sqrt(width * batch_tokens / 1024) / rank)
    logs = [
        np.interp(math.log(rank), np.log(list(rates)), np.log(list(rates.values())))
        for rates in _PAPERS_RATES.values()
    ]
    return math.exp(np.interp(math.log(width), np.log(list(_PAPERS_RATES)), logs))


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
