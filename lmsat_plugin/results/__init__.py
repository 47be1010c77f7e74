"""Any tree of lm-eval result files as a table. Nothing here imports lm_eval or torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmsat_plugin.lazy import lazy_names

if TYPE_CHECKING:
    from lmsat_plugin.results.tree import Results, load_results

__all__ = ["Results", "load_results"]

__getattr__ = lazy_names(__name__, {"tree": __all__})
