"""What a probe may need. The engine provides it once for all probes."""

from __future__ import annotations

import enum


class Need(enum.Flag):
    """What a probe needs. The engine provides it once for all probes."""

    WEIGHTS = enum.auto()
    """The model's weights, in `ProbeContext.model`."""
    TOKENS = enum.auto()
    """The corpus as tokens, in `ProbeContext.corpus`; no forward pass. A probe that needs no more does not depend on
    windows: a sweep does not measure again when only these change."""
    HIDDEN_STATES = enum.auto()
    """`Probe.update_hidden` for every layer of every batch."""
    TOKEN_LOSSES = enum.auto()
    """`Probe.update_losses` for every batch."""
    GRADIENTS = enum.auto()
    """The probe runs backward passes of its own over `ProbeContext.corpus` in `Probe.finish`."""
    TRAINING_STREAM = enum.auto()
    """Text to train on besides the measured corpus, by `ProbeContext.open_training`."""
    FINAL_STATES = enum.auto()
    """`Probe.update_final` for every batch, and `ProbeContext.head`, which maps these states to logits."""
    HEAD = enum.auto()
    """The LM head's weight, in `ProbeContext.head_weight_VD`. If no probe needs more, nothing else is loaded."""
    LAST_MOMENTS = enum.auto()
    """The sums of the last layer's states and of their products, in `ProbeContext.last_moments`."""
    PREDICTIONS = enum.auto()
    """`Probe.update_predictions` for every batch."""
    LOSSES_AGAIN = enum.auto()
    """Passes of the probe's own in `Probe.finish`, under weights that it changes, by `ProbeContext.losses_again`."""
    PASS_AGAIN = enum.auto()
    """Passes of the probe's own over windows that it chooses, by `ProbeContext.pass_again`."""
    REFERENCE = enum.auto()
    """Another checkpoint beside the measured one, by `ProbeContext.beside`: the one that the probe's setting
    ``reference`` names; none where that is empty."""


FORWARD = Need.HIDDEN_STATES | Need.TOKEN_LOSSES | Need.FINAL_STATES | Need.LAST_MOMENTS | Need.PREDICTIONS
WINDOWS = FORWARD | Need.GRADIENTS | Need.TRAINING_STREAM | Need.LOSSES_AGAIN | Need.PASS_AGAIN
"""What depends on where the prefix token stands."""
CORPUS = WINDOWS | Need.TOKENS
