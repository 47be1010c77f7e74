"""The probe of the gradient's noise: the batch size above which a larger batch stops helping.

Shapes: K sequences, G groups of them, X entries of a sketch; a leading ``…`` is any shape.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
from pydantic import PositiveInt

from lmsat_plugin.analysis.scaling_laws.kaplan import critical_batch
from lmsat_plugin.errors import DivergedError, LmsatError
from lmsat_plugin.measurement.execution import Processes
from lmsat_plugin.measurement.sequences import draw_sequences, longest_sequence
from lmsat_plugin.model.memory import is_out_of_memory
from lmsat_plugin.probe import Measurement, Need, Probe, ProbeContext, Sums
from lmsat_plugin.probes.gradient_noise.estimates import GradientNoise, jackknife
from lmsat_plugin.probes.gradient_noise.gradients import SKETCH, GradientSum, differentiable, sequence_loss
from lmsat_plugin.settings import Settings

logger = logging.getLogger(__name__)

_LEAST_SEQUENCES = 4
_USUAL_SEQUENCE, _USUAL_SEQUENCES = 512, 16
# A sketch takes two megabytes: with more sequences than this, several share one.
_MOST_GROUPS = 32


class GradientNoiseSettings(Settings):
    """The settings of lmsat_gradient_noise."""

    noise_tokens: PositiveInt = 4096
    """Sequences are drawn, each once, until they score so many tokens; a token costs three times a forward pass."""
    noise_sequence: PositiveInt | None = None
    """Tokens of a sequence, at most the run's window; by default 512, or a sixteenth of ``noise_tokens`` if less."""


class GradientNoiseProbe(Probe[GradientNoiseSettings]):
    """The gradient noise scale B_simple = tr Σ/|G|² (McCandlish et al. 2018, 1812.06162, eq. 2.9, App. A.1).

    Documents are cut into sequences of ``noise_sequence`` tokens, of which the last may be shorter
    (`GradientNoise.of` takes any lengths). Of the sequence before its own a token sees only the last token (at the
    document's beginning the prefix token; with ``prefix=window`` each sequence begins with it). Sequences are drawn in
    a random order that is always the same. Each has one backward pass, in float32 or better, without dropout, over all
    parameters of floating point, also frozen ones, a shared one once.

    Metrics: ``gradient_norm_squared``, the unbiased |G|², and ``noise_trace``, tr Σ for one token, both with their
    standard errors; average these two over measurements, and divide afterwards. ``critical_batch_tokens``, their
    ratio, and ``gradient_norm``, the root, with theirs. ``kaplan_critical_batch_tokens`` = B_*/L^(1/α_B), B_* = 2·10⁸
    tokens, α_B = 0.21 (Kaplan et al. 2020, eq. 1.4), for the loss L of the same sequences; it was fitted on WebText2
    with GPT-2's tokenizer.

    Where |G|² is not above its standard error the noise drowns the gradient: ``critical_batch_tokens`` and
    ``gradient_norm`` are then left out, the provenance says ``drowned``, and a warning is logged.

    Standard errors are by jackknife over the sequences (over 32 groups if there are more), from sketches of the
    gradients, which makes them inexact by a few per cent. Where noise dominates, that of |G|² is about 1.5 times
    too large.
    """

    name = "gradient_noise"
    cost = "forward and backward over 4,096 tokens"
    version = 2
    needs = Need.GRADIENTS
    settings_type = GradientNoiseSettings

    def prepare(self, context: ProbeContext) -> None:
        """Draw the sequences. Raises `LmsatError` for fewer than four."""
        assert context.corpus is not None
        self.context = context
        tokens = min(self.settings.noise_tokens, context.corpus.n_tokens)
        usual = min(_USUAL_SEQUENCE, max(1, tokens // _USUAL_SEQUENCES))
        self.length = longest_sequence(context, self.settings.noise_sequence or usual)
        self.sequences = draw_sequences(context.corpus, self.length, self.settings.noise_tokens)
        if len(self.sequences) < _LEAST_SEQUENCES:
            raise LmsatError(
                f"noise_tokens={self.settings.noise_tokens} of a corpus of {context.corpus.n_tokens} tokens are only "
                f"{len(self.sequences)} sequences of {self.length}, and the noise needs {_LEAST_SEQUENCES}: "
                "set noise_sequence lower, or take more text"
            )

    def start(self, context: ProbeContext) -> None:
        """Make the sums empty."""
        k = len(self.sequences)
        self.sums = Sums(context, squares=(k,), sketches=(min(k, _MOST_GROUPS), SKETCH), nats=(k,))

    def finish(self) -> Measurement:
        """Run the backward passes. Raises `LmsatError` for lack of memory, and for gradients that are not finite."""
        model = self.context.model
        try:
            with differentiable(model) as parameters:
                total = self._pass(parameters)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise LmsatError(
                f"memory does not suffice for the gradient of {type(model).__name__} in float32 on a sequence of "
                f"{self.length} tokens: set noise_sequence lower, or use a larger device"
            ) from error
        return self._measurement(total, {"parameters": sum(p.numel() for p in parameters)})

    def _pass(self, parameters: list[Any]) -> float:
        """Add up the gradients of this process' share of the sequences; return |Σ s_i|² over all processes."""
        processes = Processes.current() if self.context.synchronise else Processes()
        gradients = GradientSum(parameters, self.sums.device)
        try:
            for index in range(processes.rank, len(self.sequences), processes.size):
                loss = sequence_loss(self.context.model, self.sequences[index], self.context.device)
                squared, sketch_X = gradients.add(loss)
                self.sums.squares[index] += squared
                self.sums.sketches[index % len(self.sums.sketches)] += sketch_X
                self.sums.nats[index] += loss.detach().to(self.sums.nats)
        finally:
            gradients.close()
        return gradients.squared_norm(self.context.synchronise)

    def _measurement(self, total: float, details: dict[str, Any]) -> Measurement:
        sums = {name: value.numpy() for name, value in self.sums.totals().items()}
        squares_K, sketches_GX, nats_K = sums["squares"], sums["sketches"], sums["nats"]
        for values_K, what in ((nats_K, "loss"), (squares_K, "gradient")):
            if not np.isfinite(values_K).all():
                label = self._label(int(np.flatnonzero(~np.isfinite(values_K))[0]))
                raise DivergedError(f"the {what} of document {label} is not finite")
        tokens_K = np.array([window.scored for window in self.sequences], dtype=np.float64)
        tokens = tokens_K.sum()
        noise = GradientNoise.of(total, squares_K.sum(), tokens, (tokens_K**2).sum())
        without = GradientNoise.without_each_group(total, squares_K, tokens_K, sketches_GX)
        stderr = jackknife(without.squared_norm)
        loss = nats_K.sum() / tokens
        metrics = {
            "gradient_norm_squared": noise.squared_norm,
            "gradient_norm_squared_stderr": stderr,
            "noise_trace": noise.trace,
            "noise_trace_stderr": jackknife(without.trace),
            "kaplan_critical_batch_tokens": critical_batch(loss),
        }
        details |= {"sequences": len(tokens_K), "sequence": self.length, "tokens": int(tokens), "loss": float(loss)}
        details["drowned"] = bool(noise.squared_norm <= stderr or without.squared_norm.min() <= 0)
        if details["drowned"]:
            logger.warning(
                "The noise drowns the gradient of %s: |G|² = %.3g ± %.3g on %d tokens; set noise_tokens higher for "
                "critical_batch_tokens and gradient_norm",
                *(self.context.name, noise.squared_norm, stderr, tokens),
            )
        else:
            metrics |= {
                "critical_batch_tokens": noise.critical_batch,
                "critical_batch_tokens_stderr": jackknife(without.critical_batch),
                "gradient_norm": math.sqrt(noise.squared_norm),
                "gradient_norm_stderr": jackknife(np.sqrt(without.squared_norm)),
            }
        return Measurement(metrics={name: float(value) for name, value in metrics.items()}, details=details)

    def _label(self, index: int) -> str:
        assert self.context.corpus is not None
        return self.context.corpus.documents[self.sequences[index].document].label
