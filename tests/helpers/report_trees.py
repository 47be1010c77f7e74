"""Trees of results for reports and their figures: models by size, the steps, and all that is analysed of a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from result_trees import Made

from lmsat_plugin import Results
from lmsat_plugin.analysis.analyses import Analyses

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lmsat_plugin import ReportFigure

STEPS = (1, 2, 64, 256, *range(1000, 11000, 1000))
HOSTILE = """<script>alert("x")</script>&'"""
MODELS = (Made(HOSTILE, 10**7, 4000), Made("../../evil", 10**8), Made("plain", 10**9))
TASKS = {"arc_easy": (0.25, 3.4, 0.010)}
LONG_NAME = 'org/"a" <b>$x$_with-a-name-that-goes-on-and-on-lr3e-4-bs512-seed0'


def models_of(count: int) -> list[Made]:
    """Return models of 14M parameters to 12B, the smallest of which saturates."""
    sizes = np.geomspace(14e6, 12e9, count)
    return [Made(f"suite/model-{index}", int(size), None if index else 4000) for index, size in enumerate(sizes)]


def read_analyses(root: Path, corpus: str | None = None, tokens_per_step: int | None = 2_000_000) -> Analyses:
    return Analyses.of(Results.read(root, tokens_per_step=tokens_per_step), None if corpus is None else [corpus])


def named(figures: Iterable[ReportFigure], name: str) -> ReportFigure:
    return next(figure for figure in figures if figure.name == name)
