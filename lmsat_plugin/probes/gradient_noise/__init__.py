"""The gradient noise scale: up to which batch size more tokens per batch help."""

from lmsat_plugin.probes.gradient_noise.probe import GradientNoiseProbe

__all__ = ["GradientNoiseProbe"]
