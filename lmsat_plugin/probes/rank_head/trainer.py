"""The trainer of LM heads: optimiser, warm-up and schedule of the learning rate; all ranks in one pass.

Shapes: N tokens of a batch, D width, V rows of the head, R rank, K heads.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lmsat_plugin.lazy import torch, without_gradients
from lmsat_plugin.measurement.forward import token_bar
from lmsat_plugin.model.lm_head import Head
from lmsat_plugin.model.spectrum import device_of_float64, in_float64
from lmsat_plugin.probe import TrainingStream
from lmsat_plugin.probes.rank_head.training_state import TrainingState
from lmsat_plugin.text.windows import Window

logger = logging.getLogger(__name__)

# Bytes of logits that exist at one time.
_CPU_LOGITS, _GPU_LOGITS = 1 << 27, 1 << 30
# A round has at least so many tokens, which are shuffled, so that a batch is not one document.
_ROUND_TOKENS = 16_384
# A head diverges if it ends so many nats above its first loss; less is the variation between batches.
_RISE = 1.0


def _fused(name: str, parameters: Sequence[torch.Tensor], **options: Any) -> torch.optim.Optimizer:
    return getattr(torch.optim, name)(parameters, fused=True, **options)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": functools.partial(_fused, "AdamW", betas=(0.9, 0.95), eps=1e-8),
    "adam": functools.partial(_fused, "Adam", betas=(0.9, 0.95), eps=1e-8),
    "sgd": functools.partial(_fused, "SGD", momentum=0.9),
}
"""Pythia's AdamW (Biderman et al. 2023), and others to compare it with."""


@dataclass
class LowRankHead:
    """logits = cap(scale · (left (right x) + b)) of states x; training changes both factors in place."""

    left_VR: torch.Tensor
    right_RD: torch.Tensor
    learning_rate: float
    diverged: bool = False

    @property
    def rank(self) -> int:
        """The head rank R."""
        return len(self.right_RD)

    def scoring(self, head: Head) -> Head:
        """Return the map from ``right x`` to logits, with the bias, scale and cap of the model's own head."""
        return replace(head, weight_VD=self.left_VR, tied=False)


def cosine_schedule(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: 1 % of warm-up, then a cosine down to a tenth, as Pythia's.

    transformers' ``get_cosine_with_min_lr_schedule_with_warmup`` is this curve with a first step of rate 0. It is a
    scheduler with a state, which a resumed training would have to restore.
    """
    warm_up = max(1, round(0.01 * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _state_of(make: Callable[..., torch.optim.Optimizer], parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the state that an optimiser keeps of a parameter, as that of a single number of its type."""
    single = parameter.new_zeros(1)
    single.grad = torch.zeros_like(single)
    optimizer = make([single], lr=0.0)
    optimizer.step()
    return optimizer.state[single]


def _subtract_rows(matrix_VR: torch.Tensor, rows_N: torch.Tensor, values_NR: torch.Tensor) -> None:
    """Subtract values from rows of a matrix, some of them several times, in the same order each time."""
    if matrix_VR.is_cuda:
        # Sorted by rows, where `index_add_` would add in whatever order the device comes to.
        matrix_VR.index_put_((rows_N,), -values_NR, accumulate=True)
    else:
        matrix_VR.index_add_(0, rows_N, values_NR, alpha=-1)


@dataclass(frozen=True, kw_only=True)
class _Round:
    """Windows whose final states are computed together, shuffled, and cut into steps."""

    windows: Sequence[Window]
    tokens: int
    steps: int
    seed: int


class HeadTrainer:
    """Heads of several ranks, trained on the same batches; every process holds all of them.

    Ten ranks take 0.28 of the time of ten trainings one after another (benchmarks/rank_heads.py).

    Args:
        heads: The heads with their first factors.
        head: The model's own, for its bias, scale and cap.
        prepare: Maps final states [N, D] to the heads' inputs.
        optimizer: A name of `OPTIMIZERS`.
        weight_decay: As torch's optimisers take it.
        synchronise: Whether processes share the batches, so that gradients have to be added across processes.
    """

    def __init__(
        self,
        heads: Sequence[LowRankHead],
        head: Head,
        prepare: Callable[[torch.Tensor], torch.Tensor],
        *,
        optimizer: str = "adamw",
        weight_decay: float = 0.1,
        synchronise: bool = False,
    ) -> None:
        self.heads = heads
        self.head = head
        self.losses: list[list[float]] = []
        """Mean loss of each batch, before its step, for each head."""
        self._prepare, self._synchronise = prepare, synchronise
        self._make = make = OPTIMIZERS[optimizer]
        self._optimizers = [make([h.left_VR, h.right_RD], lr=h.learning_rate, weight_decay=weight_decay) for h in heads]
        largest = max(heads, key=lambda h: h.rank)
        # The heads take turns, so that memory holds the gradient of one head only.
        self._gradient = torch.empty_like(largest.left_VR).flatten()
        budget = _GPU_LOGITS if largest.left_VR.is_cuda else _CPU_LOGITS
        rows = max(1, budget // (len(largest.left_VR) * largest.left_VR.itemsize))
        self._logits = largest.left_VR.new_empty(rows, len(largest.left_VR))

    def train(
        self,
        stream: TrainingStream,
        batch_tokens: int,
        *,
        seed: int,
        share: float = 1.0,
        state: TrainingState | None = None,
    ) -> None:
        """Train on the stream's tokens, about ``batch_tokens`` a step, or on the first ``share`` of them.

        With a ``state`` the training continues from there, and saves its state there from time to time.
        """
        parts = stream.rounds(max(batch_tokens, _ROUND_TOKENS), seed)
        rounds = [
            self._round(windows, batch_tokens, seed * 1_000_003 + number)
            for number, windows in enumerate(parts[: max(1, round(share * len(parts)))])
        ]
        done = state.load(self) if state is not None else 0
        step, steps = (sum(part.steps for part in some) for some in (rounds[:done], rounds))
        shown = stream.rank == 0
        tokens, tokens_done = (sum(part.tokens for part in some) for some in (rounds, rounds[:done]))
        with token_bar("heads", tokens, done=tokens_done, shown=shown) as bar:
            for number, part in enumerate(rounds[done:], done + 1):
                self._train_round(stream, part, step, steps)
                step += part.steps
                bar.update(part.tokens)
                if state is not None and shown:
                    state.save(self, number, last=number == len(rounds))

    @staticmethod
    def _round(windows: Sequence[Window], batch_tokens: int, seed: int) -> _Round:
        tokens = sum(window.scored for window in windows)
        return _Round(windows=windows, tokens=tokens, steps=max(1, round(tokens / batch_tokens)), seed=seed)

    def _train_round(self, stream: TrainingStream, part: _Round, first_step: int, total_steps: int) -> None:
        states = stream.states(part.windows)
        generator = torch.Generator().manual_seed(part.seed)
        # Each token's turn: the same on all processes, of which each has some of the tokens.
        turn_N = torch.randperm(part.tokens, generator=generator)[states.places_N.cpu()]
        order_N = turn_N.argsort()
        ends = [part.tokens * (number + 1) // part.steps for number in range(part.steps)]
        cuts = torch.searchsorted(turn_N[order_N], torch.tensor(ends)).tolist()
        for number, (start, stop) in enumerate(zip([0, *cuts], cuts, strict=False)):
            own_N = order_N[start:stop].to(states.targets_N.device)
            count = ends[number] - (ends[number - 1] if number else 0)
            factor = cosine_schedule(first_step + number, total_steps)
            self.step(self._prepare(states.states_ND[own_N]), states.targets_N[own_N], count, factor)

    @without_gradients
    def step(self, states_ND: torch.Tensor, targets_N: torch.Tensor, count: int, factor: float) -> None:
        """Take one step of every head on this process' part of a batch of ``count`` tokens."""
        targets_N = targets_N.to(states_ND.device)
        losses = []
        for head, optimizer in zip(self.heads, self._optimizers, strict=True):
            if head.diverged:
                losses.append(math.nan)
                continue
            head.left_VR.grad = self._gradient[: head.left_VR.numel()].view_as(head.left_VR).zero_()
            nats = self._add_gradients(head, states_ND, targets_N, count)
            for group in optimizer.param_groups:
                group["lr"] = head.learning_rate * factor
            norm = torch.nn.utils.clip_grad_norm_([head.left_VR, head.right_RD], 1.0)
            # Both numbers at once: a GPU is waited for once a head and step.
            loss, length = torch.stack([nats / count, norm.to(nats.device).to(nats.dtype)]).tolist()
            losses.append(loss)
            if math.isfinite(loss) and math.isfinite(length):
                optimizer.step()
            else:
                head.diverged = True
            head.left_VR.grad = head.right_RD.grad = None
        self.losses.append(losses)

    def _add_gradients(
        self, low: LowRankHead, states_ND: torch.Tensor, targets_N: torch.Tensor, count: int
    ) -> torch.Tensor:
        """Add the gradient of the mean loss to the head's factors; return the batch's summed loss, nats, float64.

        With p = softmax(logits) and e the target, the gradient by the logits is (p − e)/count. The narrow factor is
        divided by the sum of exponentials instead of p, which saves a pass over the logits.
        """
        left_VR, grad_VR, scale = low.left_VR, low.left_VR.grad, self.head.scale / count
        assert grad_VR is not None
        reduced_NR = states_ND @ low.right_RD.T
        grad_NR = torch.empty_like(reduced_NR)
        nats = torch.zeros((), dtype=torch.float64, device=device_of_float64(left_VR.device))
        for start in range(0, len(targets_N), len(self._logits)):
            here = slice(start, start + len(self._logits))
            reduced, targets = reduced_NR[here], targets_N[here]
            logits = torch.mm(reduced, left_VR.T, out=self._logits[: len(targets)])
            logits = self.head.finish(logits)
            slope = None if self.head.softcap is None else 1 - (logits / self.head.softcap) ** 2
            target = logits.gather(1, targets[:, None])
            largest = logits.amax(1, keepdim=True)
            weights = logits.sub_(largest).exp_()
            total = weights.sum(1, keepdim=True)
            nats += (in_float64(total).log() + in_float64(largest) - in_float64(target)).sum()
            inverse = scale / total
            pulled = reduced * scale
            if slope is not None:
                pulled = pulled * slope.gather(1, targets[:, None])
                weights *= slope
            grad_VR.addmm_(weights.T, reduced * inverse)
            _subtract_rows(grad_VR, targets, pulled)
            rows = left_VR[targets] * scale
            if slope is not None:
                rows *= slope.gather(1, targets[:, None])
            grad_NR[here] = (weights @ left_VR) * inverse - rows
        low.right_RD.grad = grad_NR.T @ states_ND
        if self._synchronise:
            for tensor in (grad_VR, low.right_RD.grad, nats):
                torch.distributed.all_reduce(tensor)
        return nats

    def finish(self) -> None:
        """Mark heads whose last losses are far above their first as diverged, and warn of them."""
        last = max(1, len(self.losses) // 10)
        for index, head in enumerate(self.heads):
            end = sum(losses[index] for losses in self.losses[-last:]) / last
            head.diverged |= not end <= self.losses[0][index] + _RISE
            if head.diverged:
                logger.warning(
                    "the head of rank %d diverged at a learning rate of %g: set learning_rate lower",
                    head.rank,
                    head.learning_rate,
                )
            elif end > math.log(len(head.left_VR)):
                logger.warning(
                    "the head of rank %d is still worse than a uniform distribution (%.1f nats): "
                    "give more train_tokens, or init=svd",
                    head.rank,
                    end,
                )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return everything that training changes, by name."""
        tensors = {}
        for prefix, parameter, optimizer in self._parameters():
            tensors[prefix] = parameter
            tensors |= {f"{prefix}.{key}": value for key, value in optimizer.state[parameter].items()}
        return tensors

    def fits(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Return whether `restore` takes these tensors: those of all factors, in their shapes and types."""
        shapes: dict[str, tuple[torch.Size, torch.dtype]] = {}
        for prefix, parameter, _ in self._parameters():
            shapes[prefix] = parameter.shape, parameter.dtype
            # The optimiser of a head that diverged at its first step has no state yet.
            if any(name.startswith(f"{prefix}.") for name in tensors):
                for key, value in _state_of(self._make, parameter).items():
                    shapes[f"{prefix}.{key}"] = parameter.shape if value.ndim else value.shape, value.dtype
        return shapes == {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `tensors` returned."""
        for prefix, parameter, optimizer in self._parameters():
            parameter.copy_(tensors[prefix])
            of_parameter = {name: t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
            optimizer.state[parameter].update(
                {name.removeprefix(f"{prefix}."): tensor for name, tensor in of_parameter.items()}
            )

    def _parameters(self) -> Iterator[tuple[str, torch.Tensor, torch.optim.Optimizer]]:
        for index, (head, optimizer) in enumerate(zip(self.heads, self._optimizers, strict=True)):
            for name, parameter in (("left", head.left_VR), ("right", head.right_RD)):
                yield f"{index}.{name}", parameter, optimizer
