"""The probe of critical sharpness: how far a step along the gradient, or to another checkpoint, lowers the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt

from lmsat_plugin.errors import DivergedError, LmsatError
from lmsat_plugin.lazy import torch
from lmsat_plugin.measurement.execution import Processes
from lmsat_plugin.measurement.sequences import draw_sequences, longest_sequence
from lmsat_plugin.model.changed_weights import restored
from lmsat_plugin.model.memory import is_out_of_memory
from lmsat_plugin.model.spectrum import in_float64
from lmsat_plugin.probe import Measurement, Need, NoReferenceError, Probe, ProbeContext, Sums
from lmsat_plugin.probes.gradient_noise.gradients import differentiable, sequence_loss
from lmsat_plugin.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

_SEQUENCE = 512
_PASSES = 8
_FIRST_DROP = 0.1
_NEAR = 1.1
_FARTHEST = 64.0
_METRICS = ("critical_sharpness", "critical_sharpness_low", "critical_sharpness_high")


class SharpnessSettings(Settings):
    """The settings of lmsat-sharpness."""

    sharpness_tokens: PositiveInt = 4096
    """The loss and its gradient are those of sequences that score so many tokens."""
    reference: Annotated[str, Field(coerce_numbers_to_str=True)] = ""
    """The checkpoint towards which the steps go, such as ``next``: as in `SimilaritySettings`; empty for steps along
    the negative gradient."""


class SharpnessProbe(Probe[SharpnessSettings]):
    """Critical sharpness λ_c = 2/η_c, η_c the least step at which the loss rises (Kalra et al. 2026, 2601.16979).

    The step is θ − η g, g the gradient of the mean loss of sequences of at most 512 tokens, drawn in an order that is
    always the same, in float32 or better (training steps along the optimiser's update, which checkpoints do not hold).
    For a quadratic loss λ_c is the curvature along g. With a reference the step is θ + η (θ_ref − θ): with
    ``reference=next`` the change that training made, so that η = 1 is the next checkpoint, and η_c > 1 (λ_c < 2) says
    that the loss falls beyond it. η_c is bracketed in at most eight passes without gradients: a first step by which the
    loss would fall by a tenth were it linear, and to a reference of 1; the step that a parabola through it gives, then
    doubling or halving, then bisecting on a log scale until the ends differ by a tenth or the passes are used up.

    Metrics: ``critical_sharpness``, of the geometric mean of the bracket's ends; ``critical_sharpness_low`` and
    ``critical_sharpness_high``, of the ends; null where no step of the bracket raises the loss, or every one does,
    without the reference that is asked for, and where the loss does not fall towards it.
    """

    name = "sharpness"
    is_expensive = True
    cost = "a gradient and eight passes over 4,096 tokens"
    needs = Need.GRADIENTS | Need.REFERENCE
    settings_type = SharpnessSettings

    def start(self, context: ProbeContext) -> None:
        """Draw the sequences."""
        assert context.corpus is not None
        self.context, length = context, longest_sequence(context, _SEQUENCE)
        self.sequences = draw_sequences(context.corpus, length, self.settings.sharpness_tokens)
        self.tokens = sum(window.scored for window in self.sequences)

    def finish(self) -> Measurement:
        """Take the gradient, then step. Raises `LmsatError` for lack of memory."""
        model = self.context.model
        details: dict[str, Any] = {"tokens": self.tokens}
        try:
            target = self._target(details)
            with differentiable(model) as parameters:
                loss = self._loss(backward=True)
                squared = self._add_up(parameters)
                if not (math.isfinite(loss) and math.isfinite(squared)):
                    raise DivergedError("the model's loss or its gradient is not finite")
                slope, first = squared, _FIRST_DROP * loss / squared if squared else 0.0
                with torch.no_grad(), restored(parameters) as starts:
                    if target is not None:
                        slope, first = self._turn_towards(target, parameters), 1.0
                    search = _Search(self._rise_along(parameters, starts, loss))
                    search.run(first, slope)
        except NoReferenceError as error:
            return Measurement.with_gaps({}, dict.fromkeys(_METRICS, str(error)), {}, details)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise LmsatError(
                f"memory does not suffice for the gradient of {type(model).__name__} in float32 and a copy of its "
                "weights: leave out lmsat-sharpness, or use a larger device"
            ) from error
        details |= {"loss": loss, "gradient_norm": math.sqrt(squared), "passes": search.passes}
        if search.reason is not None:
            return Measurement.with_gaps({}, dict.fromkeys(_METRICS, search.reason), {}, details)
        low, high = search.low, search.high
        values = (2 / math.sqrt(low * high), 2 / high, 2 / low)
        return Measurement.with_gaps(dict(zip(_METRICS, values, strict=True)), {}, {}, details)

    def _target(self, details: dict[str, Any]) -> dict[str, torch.Tensor] | None:
        """Return the parameters of the checkpoint to step towards, by name; None for steps along the gradient."""
        if not self.settings.reference:
            return None
        assert self.context.beside is not None
        beside = self.context.beside(self.settings.reference)
        target = dict(beside.model().named_parameters())
        own = dict(self.context.model.named_parameters())
        if {name: each.shape for name, each in own.items()} != {name: each.shape for name, each in target.items()}:
            raise NoReferenceError("the reference has other parameters: compare models of one shape")
        details["reference"] = beside.note()
        return target

    def _turn_towards(self, target: Mapping[str, torch.Tensor], parameters: Sequence[nn.Parameter]) -> float:
        """Put what to step against, θ − θ_ref, in the place of gradients; return how fast the loss falls from here."""
        names = {id(parameter): name for name, parameter in self.context.model.named_parameters()}
        slope = 0.0
        for parameter in parameters:
            away = parameter.detach() - target[names[id(parameter)]].detach().to(parameter)
            if parameter.grad is not None:
                slope += float((in_float64(parameter.grad) * in_float64(away)).sum())
            parameter.grad = away
        return slope

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

    def run(self, first: float, slope: float) -> None:
        """Search from a first step on, where the loss falls by ``slope`` for each unit of the step at 0."""
        if slope <= 0:
            rises = "the loss does not fall along it" if slope else "no step changes the loss"
            self.reason = f"the slope of the loss along the step is {-slope:.3g}: {rises}"
            return
        step = first
        while self.passes < _PASSES and (not self.low or math.isinf(self.high)):
            rise = self._try(step)
            # Of the parabola with the gradient's slope at 0 and the rise at this step.
            curvature = 2 * (rise + step * slope) / step**2
            guess = 2 * slope / curvature if math.isfinite(curvature) and curvature > 0 else step
            if self.passes > 1:
                # The loss bends less than the parabola does.
                guess = max(guess, self.low * 2) if self.low else min(guess, self.high / 2)
            step = min(max(guess, step / _FARTHEST), step * _FARTHEST)
        while self.passes < _PASSES and self.high > self.low * _NEAR:
            self._try(math.sqrt(self.low * self.high))
        if math.isinf(self.high):
            self.reason = f"no step up to {self.low:.3g} times the gradient or the change raises the loss"
        elif not self.low:
            self.reason = f"even a step of {self.high:.3g} times the gradient or the change raises the loss"

    def _try(self, step: float) -> float:
        rise = self._rise(step)
        self.passes += 1
        # A loss that is no longer finite has risen.
        if rise <= 0:
            self.low = max(self.low, step)
        else:
            self.high = min(self.high, step)
        return rise
