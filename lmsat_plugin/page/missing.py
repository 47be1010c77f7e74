"""Which analyses the results do not allow, and what results each of them needs, in words at the report's end."""

from __future__ import annotations

from lmsat_plugin.analysis.analyses import Analyses

_ANALYSES = {
    "saturation": (
        "Saturation",
        "It needs lmsat_loss or scores at 8 or more checkpoints of a model, and names that state steps, tokens or "
        "words, or --step-pattern RE.",
    ),
    "emergence": (
        "Emergence",
        "It needs lmsat_loss and scores at 12 or more checkpoints of 3 or more models, under the same names.",
    ),
    "law": (
        "Scaling law",
        "It needs lmsat_loss of models of several sizes and numbers of tokens. Where names state steps alone, "
        "give --tokens-per-step N.",
    ),
    "ranks": ("Rank of the LM head", ""),
    "context": ("Loss by position in the context", ""),
    "every metric": ("Every metric", "Choose any other in the field above the figures; values.csv has all."),
    "cards": ("Cards of all models", "A report on the folder of one model has its card: lmsat report DIR/MODEL."),
}
"""Each analysis' title, and what it needs, where the reason why it is missing does not say it."""


def missing_analyses(analyses: Analyses) -> list[tuple[str, str, str]]:
    """Return each analysis that was asked for and is missing: its title, the reason, and what it needs."""
    root = analyses.results.root
    return [
        # The page goes to other people, who do not have this folder.
        (title, analyses.missing[name].replace(str(root), root.absolute().name), how)
        for name, (title, how) in _ANALYSES.items()
        if name in analyses.missing
    ]
