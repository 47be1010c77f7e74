"""The fixtures of sweeps: series of tiny checkpoints, and configurations."""

from sweep_fixtures import *  # noqa: F403
from sweep_fixtures import _quiet as _quiet
