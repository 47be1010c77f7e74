"""Trained LM heads of several ranks: the peak learning rates and first factors they start from, and their files.

Shapes: N tokens, D width, V rows of the head, R rank.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import cache_folder, safe_name
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.head_files import save_restricted_head
from lmsat_plugin.model.low_rank import NestedHeads
from lmsat_plugin.model.spectrum import in_float64
from lmsat_plugin.probe import ProbeContext, TrainingStream
from lmsat_plugin.probes.rank_head.settings import SEARCHED, SEARCHED_SHARE, RankHeadSettings, default_rate
from lmsat_plugin.probes.rank_head.trainer import HeadTrainer, LowRankHead
from lmsat_plugin.probes.rank_head.training_state import TrainingState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainedHeads:
    """Trained heads of several ranks, those that diverged among them."""

    heads: Sequence[LowRankHead]
    into_DD: torch.Tensor
    """The heads' inputs are final states times this matrix."""
    losses: list[list[float]]
    """Mean loss of each batch, before its step, for each head."""
    learning_rates: tuple[float, ...]
    state: TrainingState

    def details(self, stream: TrainingStream, settings: RankHeadSettings) -> dict[str, Any]:
        """Return how the heads were trained, for the provenance."""
        return {
            "tokens": stream.corpus.n_tokens,
            "steps": len(self.losses),
            "batch_tokens": settings.step_tokens,
            "learning_rates": list(self.learning_rates),
        }


@dataclass(frozen=True, kw_only=True)
class HeadTraining:
    """A training of heads of the ranks of ``weighted``, which are the first factors for ``init=svd``."""

    context: ProbeContext
    stream: TrainingStream
    settings: RankHeadSettings
    weighted: NestedHeads

    def run(self) -> TrainedHeads:
        """Train the heads, from where an earlier training with the same result was interrupted.

        Raises `LmsatError` for learning rates that do not match the ranks.
        """
        if self.weighted.head.tied:
            logger.warning("The LM head is tied to the embeddings: the heads are trained apart from them")
        rates = self._learning_rates()
        state = TrainingState(self._state_path(rates), self.context.synchronise)
        trainer, into_DD = self._trainer(rates)
        trainer.train(self.stream, self.settings.step_tokens, seed=self.settings.train_seed, state=state)
        trainer.finish()
        return TrainedHeads(
            heads=trainer.heads, into_DD=into_DD, losses=trainer.losses, learning_rates=rates, state=state
        )

    def _learning_rates(self) -> tuple[float, ...]:
        settings, ranks = self.settings, self.weighted.ranks
        given, width = settings.learning_rate, self.weighted.head.weight_VD.shape[1]
        if isinstance(given, tuple):
            if len(given) != len(ranks):
                raise LmsatError(
                    f"learning_rate has {len(given)} values for {len(ranks)} ranks: give one, or one for each"
                )
            # The settings' ranks may stand in any order.
            return tuple(rate for _, rate in sorted(zip(settings.ranks or ranks, given, strict=True)))
        if isinstance(given, float):
            return (given,) * len(ranks)
        defaults = [default_rate(settings.init, rank, width, settings.step_tokens) for rank in ranks]
        if given is None:
            return tuple(defaults)
        losses = []
        for factor in SEARCHED:
            trainer, _ = self._trainer([rate * factor for rate in defaults])
            trainer.train(self.stream, settings.step_tokens, seed=settings.train_seed, share=SEARCHED_SHARE)
            last = max(1, len(trainer.losses) // 4)
            losses.append(np.mean(trainer.losses[-last:], axis=0))
        best = np.argmin(np.nan_to_num(losses, nan=np.inf), axis=0)
        return tuple(rate * SEARCHED[index] for rate, index in zip(defaults, best, strict=True))

    def _trainer(self, rates: Sequence[float]) -> tuple[HeadTrainer, torch.Tensor]:
        """Return a trainer of new heads, and the matrix that maps final states to their inputs."""
        head, ranks = self.weighted.head, self.weighted.ranks
        device, dtype = head.weight_VD.device, head.dtype
        rows, width = head.weight_VD.shape
        if self.settings.init == "svd":
            # In these coordinates the states' second moment is the identity.
            into_DD = self.weighted.truncation.reduce_DD.T.to(device, dtype)
            expanded_VD = self.weighted.expanded_VD
            lefts = [expanded_VD[:, :rank].clone(memory_format=torch.contiguous_format) for rank in ranks]
            factors = [(left, torch.eye(left.shape[1], width, device=device, dtype=dtype)) for left in lefts]
        else:
            into_DD = torch.eye(width, device=device, dtype=dtype)
            generator = torch.Generator().manual_seed(self.settings.train_seed)

            def normal(*shape: int) -> torch.Tensor:
                return torch.randn(*shape, generator=generator, dtype=dtype).to(device)

            factors = [(normal(rows, rank), normal(rank, width)) for rank in ranks]
        trainer = HeadTrainer(
            [
                LowRankHead(left_VR=left, right_RD=right, learning_rate=rate)
                for (left, right), rate in zip(factors, rates, strict=True)
            ],
            head,
            lambda states_ND: states_ND.to(device, dtype) @ into_DD,
            optimizer=self.settings.optimizer,
            weight_decay=self.settings.weight_decay,
            synchronise=self.context.synchronise,
        )
        return trainer, into_DD

    def _state_path(self, rates: Sequence[float]) -> Path:
        """Return the file for the state of this training: of this model, text and settings, and no other's."""
        text, settings = self.stream.corpus.provenance, self.settings
        made_of = [settings.model_dump(exclude={"heads"}), self.weighted.ranks, rates, settings.step_tokens]
        made_of += [text["sha256"], text["tokens"], text["window"], text["prefix_token"]]
        # A state that an earlier version has left is of document.
        made_of += [] if text["prefix"] == "document" else [text["prefix"]]
        digest = hashlib.sha256(json.dumps(made_of).encode())
        for name, parameter in self.context.model.named_parameters():
            # Training changes nearly all of a model's weights: a sample of each tensor tells models apart.
            some = parameter.detach().flatten()[:: max(1, parameter.numel() // 256)]
            digest.update(name.encode() + some.cpu().double().numpy().tobytes())
        folder = Path(settings.heads) if settings.heads else cache_folder() / "heads"
        return folder / f"training_{digest.hexdigest()[:16]}.safetensors"


def save_heads(folder: Path, model: str, weighted: NestedHeads) -> None:
    """Write the truncated heads in the metric of the states, one file each."""
    for rank in weighted.ranks:
        path = folder / f"{safe_name(model)}__truncated_rank_{rank}.safetensors"
        save_restricted_head(path, *weighted.factors(rank), {"kind": "weighted", "model": model})


def save_trained_heads(folder: Path, model: str, trained: TrainedHeads, details: dict[str, Any]) -> None:
    """Write the heads that were trained without diverging, one file each; ``details`` say how they were trained."""
    for low in trained.heads:
        if not low.diverged:
            right_RD = in_float64(low.right_RD) @ in_float64(trained.into_DD).T
            path = folder / f"{safe_name(model)}__rank_{low.rank}.safetensors"
            metadata = {"kind": "trained", "model": model, **details}
            save_restricted_head(path, low.left_VR, right_RD, metadata)
