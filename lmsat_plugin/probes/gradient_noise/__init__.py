"""The gradient noise scale: how large a batch is worth its tokens."""

from lmsat_plugin.probes.gradient_noise.probe import GradientNoiseProbe

__all__ = ["GradientNoiseProbe"]
