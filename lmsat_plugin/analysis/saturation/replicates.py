"""What the runs of one model, replicates, say together: in how many of them it saturates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lmsat_plugin.analysis.saturation.by_model import Saturation
from lmsat_plugin.analysis.saturation.several_metrics import told_apart
from lmsat_plugin.analysis.saturation.verdict import Verdict

ORDER: tuple[Verdict, ...] = ("diverged", "saturates", "plateaus", "improving", "unclear")
"""The verdicts, the gravest first."""
_UNNAMED = "the one without a name"


def groups_of(results: Sequence[Saturation]) -> dict[str, list[Saturation]]:
    """Return the verdicts on the runs of each model with several, by the name that these share.

    Verdicts on different corpora, shots or filters are groups of their own.
    """
    groups: dict[tuple[object, ...], list[Saturation]] = {}
    for result in results:
        key = (result.group, result.task, result.metric, result.corpus, result.num_fewshot, result.filter)
        groups.setdefault(key, []).append(result)
    several = [group for group in groups.values() if len(group) > 1]
    return {_name(group, several): group for group in several}


def _name(group: Sequence[Saturation], groups: Sequence[Sequence[Saturation]]) -> str:
    """Return the name of a group, with what tells it apart from others of the same model."""
    first = group[0]
    alike = [other[0] for other in groups if other[0].group == first.group]
    return ", ".join([first.group, *told_apart(first, alike)])


def over_runs(group: Sequence[Saturation]) -> str:
    """Return the verdict on the runs of one model in words, such as ``saturates in 3 of 10 runs``."""
    return f"saturates in {sum(result.verdict == 'saturates' for result in group)} of {len(group)} runs"


def sentences_on_runs(results: Sequence[Saturation]) -> list[str]:
    """Return a sentence on each model with several runs: which saturate, or else how many have which verdict."""
    sentences = []
    for name, group in groups_of(results).items():
        counts = Counter(result.verdict for result in group)
        named = [result.run or _UNNAMED for result in group if result.verdict == "saturates"]
        counted = [f"{counts[verdict]} {verdict}" for verdict in ORDER if counts[verdict]]
        sentences.append(f"{name}: {over_runs(group)} ({', '.join(named or counted)})")
    return sentences
