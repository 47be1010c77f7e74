"""The probe of critical sharpness: how far a step along the negative gradient lowers the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from lmsat_plugin.errors import DivergedError, LmsatError
from lmsat_plugin.lazy import torch
from lmsat_plugin.measurement.execution import Processes
from lmsat_plugin.model.anatomy import position_limit
from lmsat_plugin.model.changed_weights import restored
from lmsat_plugin.model.memory import is_out_of_memory
from lmsat_plugin.model.spectrum import in_float64
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext, Sums
from lmsat_plugin.probes.gradient_noise.gradients import differentiable, sequence_loss
from lmsat_plugin.probes.gradient_noise.sequences import draw_sequences
from lmsat_plugin.settings import Settings
from lmsat_plugin.text.windows import most_scored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

_SEQUENCE = 512
_PASSES = 8
_FIRST_DROP = 0.1
_NEAR = 1.1
_FARTHEST = 64.0


class SharpnessSettings(Settings):
    """The settings of lmsat-sharpness."""

    sharpness_tokens: PositiveInt = 4096
    """The loss and its gradient are those of sequences that score so many tokens."""


class SharpnessProbe(Probe[SharpnessSettings]):
    """Critical sharpness λ_c = 2/η_c, η_c the least step at which the loss rises (Kalra et al. 2026, 2601.16979).

    The step is θ − η g, g the gradient of the mean loss of sequences of at most 512 tokens, drawn in an order that is
    always the same, in float32 or better (training steps along the optimiser's update, which checkpoints do not hold).
    For a quadratic loss λ_c is the curvature along g. η_c is bracketed in at most eight passes without gradients: a
    first step by which the loss would fall by a tenth were it linear, the step that a parabola through it gives, then
    doubling or halving, then bisecting on a log scale until the ends differ by a tenth or the passes are used up.

    Metrics: ``critical_sharpness``, of the geometric mean of the bracket's ends; ``critical_sharpness_low`` and
    ``critical_sharpness_high``, of the ends; null where no step of the bracket raises the loss, or every one does.
    """

    name = "sharpness"
    is_expensive = True
    cost = "a gradient and eight passes over 4,096 tokens"
    needs = Need.GRADIENTS
    settings_type = SharpnessSettings

    def start(self, context: ProbeContext) -> None:
        """Draw the sequences."""
        assert context.corpus is not None
        self.context = context
        window = min(context.corpus.window, position_limit(context.model) or context.corpus.window)
        length = min(_SEQUENCE, most_scored(window, context.corpus.prefix_policy))
        self.sequences = draw_sequences(context.corpus, length, self.settings.sharpness_tokens)
        self.tokens = sum(window.scored for window in self.sequences)

    def finish(self) -> Measurement:
        """Take the gradient, then step along it. Raises `LmsatError` for lack of memory."""
        model = self.context.model
        try:
            with differentiable(model) as parameters:
                loss = self._loss(backward=True)
                squared = self._add_up(parameters)
                if not (math.isfinite(loss) and math.isfinite(squared)):
                    raise DivergedError("the model's loss or its gradient is not finite")
                with torch.no_grad(), restored(parameters) as starts:
                    search = _Search(self._rise_along(parameters, starts, loss))
                    search.run(_FIRST_DROP * loss / squared if squared else 0.0, squared)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise LmsatError(
                f"memory does not suffice for the gradient of {type(model).__name__} in float32 and a copy of its "
                "weights: leave out lmsat-sharpness, or use a larger device"
            ) from error
        names = ("critical_sharpness", "critical_sharpness_low", "critical_sharpness_high")
        details = {"loss": loss, "gradient_norm": math.sqrt(squared), "passes": search.passes, "tokens": self.tokens}
        if search.reason is not None:
            return Measurement.with_gaps({}, dict.fromkeys(names, search.reason), {}, details)
        low, high = search.low, search.high
        values = (2 / math.sqrt(low * high), 2 / high, 2 / low)
        return Measurement.with_gaps(dict(zip(names, values, strict=True)), {}, {}, details)

    def _loss(self, *, backward: bool = False) -> float:
        """Return the mean loss of all sequences in nats; ``backward`` adds its gradient to the parameters'."""
        processes = Processes.current() if self.context.synchronise else Processes()
        sums = Sums(self.context, loss=())
        for window in self.sequences[processes.rank :: processes.size]:
            loss = sequence_loss(self.context.model, window, self.context.device)
            if backward:
                (loss / self.tokens).backward()
            sums.update(loss=loss.detach())
        return float(sums.totals()["loss"]) / self.tokens

    def _add_up(self, parameters: Sequence[nn.Parameter]) -> float:
        """Add the gradients of all processes; return the squared norm."""
        total = 0.0
        for parameter in parameters:
            if self.context.synchronise:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                torch.distributed.all_reduce(parameter.grad)
            if parameter.grad is not None:
                total += float(in_float64(parameter.grad).square().sum())
        return total

    def _rise_along(
        self, parameters: Sequence[nn.Parameter], starts: Sequence[torch.Tensor], loss: float
    ) -> Callable[[float], float]:
        """Return how much the loss rises when the parameters are moved from where they start by −η times gradients."""

        def rise(step: float) -> float:
            for parameter, start in zip(parameters, starts, strict=True):
                if parameter.grad is not None:
                    torch.add(start.to(parameter.device), parameter.grad, alpha=-step, out=parameter.detach())
            return self._loss() - loss

        return rise


class _Search:
    """The least step at which a function rises above 0, between ``low``, where it does not, and ``high``."""

    def __init__(self, rise: Callable[[float], float]) -> None:
        self._rise = rise
        self.passes = 0
        self.low, self.high = 0.0, math.inf
        self.reason: str | None = None

    def run(self, first: float, squared: float) -> None:
        """Search from a first step on, with the squared norm of the gradient at 0."""
        if not first:
            self.reason = "the gradient is zero, so that no step changes the loss"
            return
        step = first
        while self.passes < _PASSES and (not self.low or math.isinf(self.high)):
            rise = self._try(step)
            # Of the parabola with the gradient's slope at 0 and the rise at this step.
            curvature = 2 * (rise + step * squared) / step**2
            guess = 2 * squared / curvature if math.isfinite(curvature) and curvature > 0 else step
            if self.passes > 1:
                # The loss bends less than the parabola does.
                guess = max(guess, self.low * 2) if self.low else min(guess, self.high / 2)
            step = min(max(guess, step / _FARTHEST), step * _FARTHEST)
        while self.passes < _PASSES and self.high > self.low * _NEAR:
            self._try(math.sqrt(self.low * self.high))
        if math.isinf(self.high):
            self.reason = f"no step up to {self.low:.3g} times the gradient raises the loss"
        elif not self.low:
            self.reason = f"even a step of {self.high:.3g} times the gradient raises the loss"

    def _try(self, step: float) -> float:
        rise = self._rise(step)
        self.passes += 1
        # A loss that is no longer finite has risen.
        if rise <= 0:
            self.low = max(self.low, step)
        else:
            self.high = min(self.high, step)
        return rise
