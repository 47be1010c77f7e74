"""The verdicts on a tree of results in words: what a report begins with."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmsat_plugin.results.variants import label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmsat_plugin.analysis.analyses import Analyses
    from lmsat_plugin.analysis.emergence import Emergence
    from lmsat_plugin.analysis.saturation import Saturation
    from lmsat_plugin.analysis.scaling_laws import FittedLaw

_NAMED = 4
"""How many tasks a sentence on several names."""
_OF_SERIES = ("saturates", "plateaus", "improving", "unclear")
_ANSWERS = {True: "emergent", False: "not emergent", None: "unclear"}


@dataclass(frozen=True)
class Verdicts:
    """What one analysis says."""

    title: str
    summary: str
    sentences: list[tuple[str, str]]
    """What each is about, and what is said of it."""

    def __str__(self) -> str:
        """Return them as lines of text."""
        said = (f"  {subject}: {sentence}" for subject, sentence in self.sentences)
        return "\n".join([f"{self.title}: {self.summary}", *said])


def verdicts_of(analyses: Analyses) -> list[Verdicts]:
    """Return what saturation, emergence and the scaling law say; what is missing is left out."""
    found = []
    if analyses.saturation:
        found.append(_of_saturation(analyses.saturation))
    if analyses.emergence:
        found.append(_of_emergence(analyses.emergence))
    if analyses.law is not None:
        found.append(_of_law(analyses.law))
    return found


def _of_saturation(found: Sequence[Saturation]) -> Verdicts:
    """What saturates comes first."""
    found = sorted(found, key=lambda one: _OF_SERIES.index(one.verdict))
    counts = Counter(one.verdict for one in found)
    metric = " ".join(filter(None, (found[0].task, found[0].metric)))
    said = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    sentences = [(_series(one, found), f"{one.verdict}: {one.reason}.") for one in found]
    return Verdicts("Saturation", f"{len(found)} series of {metric}: {said}.", sentences)


def _series(one: Saturation, found: Sequence[Saturation]) -> str:
    """Return a series' name, with what tells it apart from others of its model."""
    parts = {
        "num_fewshot": f"{one.num_fewshot}-shot",
        "filter": f"filter {one.filter}",
        "corpus": f"on {one.corpus}",
    }
    differing = [text for name, text in parts.items() if len({getattr(other, name) for other in found}) > 1]
    return ", ".join([one.label, *differing])


def _of_emergence(found: Sequence[Emergence]) -> Verdicts:
    """Tasks of which the same is said share a sentence; what is emergent comes first."""
    names = defaultdict(list)
    for one in sorted(found, key=lambda one: list(_ANSWERS).index(one.emergent)):
        names[_emergence_in_words(one)].append(label(f"{one.task} {one.metric}", one.variant))
    counts = Counter(one.emergent for one in found)
    said = ", ".join(f"{counts[answer]} {word}" for answer, word in _ANSWERS.items() if counts[answer])
    summary = f"{len(found)} scores by lmsat_loss: {said}."
    return Verdicts("Emergence", summary, [(_list(tasks), said) for said, tasks in names.items()])


def _emergence_in_words(one: Emergence) -> str:
    if one.threshold is None:
        return f"{_ANSWERS[one.emergent]}: {one.reason}."
    ends = "" if one.low is None or one.high is None else f" (90 % interval {one.low:.3f} to {one.high:.3f})"
    return f"{_ANSWERS[True]} below a loss of {one.threshold:.3f}{ends}: {one.reason}."


def _list(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _of_law(law: FittedLaw) -> Verdicts:
    constants = []
    for name, one in law.params.items():
        if one.value is not None:
            ends = "" if one.low is None or one.high is None else f" ({one.low:.4g} to {one.high:.4g})"
            constants.append(f"{name} = {one.value:.4g}{' (given)' if one.given else ends}")
    sentences = [
        (law.law.formula, f"{', '.join(constants)}; in brackets 90 % intervals."),
        *(("Note", f"{note}.") for note in law.notes),
        *(("Warning", f"{warning}.") for warning in law.warnings),
    ]
    summary = (
        f"Fitted to the final checkpoints of the {law.points.runs} models larger than all that saturate: the residuals "
        f"are {law.residual_rms:.2g} (root mean square of the logarithm of the loss)."
    )
    return Verdicts("Scaling law", summary, sentences)
