"""Whether tests that draw a sample of something draw all of it: with ``LMSAT_EXHAUSTIVE=1`` in the environment."""

from __future__ import annotations

import os

EXHAUSTIVE = os.environ.get("LMSAT_EXHAUSTIVE", "0") not in ("", "0")
