"""How a sweep is run: which checkpoints, what is measured again, whether it waits. No result depends on it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of ``lmsat sweep``."""

    shard: tuple[int, int] | None = None
    """Part i of n, counted from 1."""
    only: tuple[str, str] | None = None
    """The model and the revision of the one checkpoint to measure."""
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What tells this run from others; the workers of one run share it."""
    force: bool = False
    """Measure again what was measured before this run."""
    retry_failed: bool = False
    """Try again what failed before this run."""
    wait: bool = True
    """Wait for the checkpoints that other processes are measuring, and take over those that they leave."""
    watch: float | None = None
    """Seconds between two looks for new checkpoints; None ends the sweep when all are measured."""
    prefix: str = ""
    """What each line of output begins with: it names the worker where there are several."""
