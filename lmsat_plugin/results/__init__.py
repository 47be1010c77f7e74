"""Any tree of lm-eval result files as a table. Nothing here imports lm_eval or torch."""

from lmsat_plugin.results.tree import Results, load_results

__all__ = ["Results", "load_results"]
