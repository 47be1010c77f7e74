"""The verdicts in words: what a report begins with, and what its command prints."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.emergence import Emergence
from lmsat_plugin.analysis.saturation import Saturation
from lmsat_plugin.analysis.saturation.replicates import ORDER, groups_of, sentences_on_runs
from lmsat_plugin.analysis.saturation.several_metrics import has_several_metrics, names_of, score_of, summaries
from lmsat_plugin.analysis.saturation.verdict import Verdict
from lmsat_plugin.analysis.scaling_laws import FittedLaw
from lmsat_plugin.results.training_order import natural
from lmsat_plugin.results.variants import label

_MOST_NAMED = 4
"""Tasks that a sentence on several names."""
_ANSWERS = {True: "emergent", False: "not emergent", None: "unclear"}


@dataclass(frozen=True)
class Verdicts:
    """The verdicts of one analysis."""

    title: str
    summary: str
    sentences: list[tuple[str, str]]
    """Each verdict's subject, and its sentence."""

    def __str__(self) -> str:
        """Return them as lines of text."""
        lines = (f"  {subject}: {sentence}" for subject, sentence in self.sentences)
        return "\n".join([f"{self.title}: {self.summary}", *lines])


def verdicts_of(analyses: Analyses) -> list[Verdicts]:
    """Return the verdicts of saturation, emergence and the scaling law. An analysis that is missing is left out."""
    verdicts = []
    if analyses.saturation:
        verdicts.append(_of_saturation(analyses.saturation))
    if analyses.emergence:
        verdicts.append(_of_emergence(analyses.emergence))
    if analyses.law is not None:
        verdicts.append(_of_law(analyses.law))
    return verdicts


def _of_saturation(results: Sequence[Saturation]) -> Verdicts:
    """Return the verdicts on series, those that saturate first."""
    results = sorted(results, key=lambda result: ORDER.index(result.verdict))
    counts = Counter(result.verdict for result in results)
    if has_several_metrics(results):
        return _of_scores(results, counts)
    metric = " ".join(filter(None, (results[0].task, results[0].metric)))
    counted = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    return Verdicts(
        title="Saturation",
        summary=f"{len(results)} series of {metric}: {counted}.",
        sentences=[
            *(
                (name, f"{result.verdict}: {result.reason}.")
                for name, result in zip(names_of(results), results, strict=True)
            ),
            *(
                (f"{name}, over its runs", f"{sentence.removeprefix(f'{name}: ')}.")
                for name, sentence in zip(groups_of(results), sentences_on_runs(results), strict=True)
            ),
        ],
    )


def _of_scores(results: Sequence[Saturation], counts: Counter[Verdict]) -> Verdicts:
    """Return a sentence on each model by its scores, those that saturate first, and one on each score that does."""
    scores = len({(result.task, result.metric) for result in results})
    grave = [result for result in results if result.verdict in ("saturates", "diverged")]
    first = {result.label for result in grave}
    said = summaries(sorted(results, key=lambda result: (result.label not in first, natural(result.label))))
    counted = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    return Verdicts(
        title="Saturation",
        summary=f"{len(results)} series of {scores} scores, without lmsat_loss: {counted}. One metric of each task is "
        "judged, and no part of a benchmark such as MMLU. p is corrected for the number of scores of a model (Holm).",
        sentences=[
            *((label, f"{sentence}.") for label, sentence in said.items()),
            *((f"{result.label}, {score_of(result)}", f"{result.verdict}: {result.reason}.") for result in grave),
        ],
    )


def _of_emergence(results: Sequence[Emergence]) -> Verdicts:
    """Return the verdicts on scores, emergent ones first. Scores with the same verdict share a sentence."""
    names = defaultdict(list)
    for result in sorted(results, key=lambda result: list(_ANSWERS).index(result.emergent)):
        score = label(f"{result.task} {result.metric}", result.variant)
        names[_emergence_in_words(result)].append(score)
    counts = Counter(result.emergent for result in results)
    counted = ", ".join(f"{counts[answer]} {word}" for answer, word in _ANSWERS.items() if counts[answer])
    return Verdicts(
        title="Emergence",
        summary=f"{len(results)} scores by lmsat_loss: {counted}.",
        sentences=[(_list(scores), sentence) for sentence, scores in names.items()],
    )


def _emergence_in_words(result: Emergence) -> str:
    if result.threshold is None:
        return f"{_ANSWERS[result.emergent]}: {result.reason}."
    known = result.low is not None and result.high is not None
    interval = f" (90 % interval {result.low:.3f} to {result.high:.3f})" if known else ""
    return f"{_ANSWERS[True]} below a loss of {result.threshold:.3f}{interval}: {result.reason}."


def _list(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _of_law(law: FittedLaw) -> Verdicts:
    constants = []
    for name, param in law.params.items():
        if param.value is not None:
            known = param.low is not None and param.high is not None
            interval = f" ({param.low:.4g} to {param.high:.4g})" if known else ""
            constants.append(f"{name} = {param.value:.4g}{' (given)' if param.given else interval}")
    return Verdicts(
        title="Scaling law",
        summary=f"Fitted to the final checkpoints of the {law.points.runs} models larger than all that saturate: the "
        f"residuals are {law.residual_rms:.2g} (root mean square of the logarithm of the loss).",
        sentences=[
            (law.law.formula, f"{', '.join(constants)}; in brackets 90 % intervals."),
            *(("Note", f"{note}.") for note in law.notes),
            *(("Warning", f"{warning}.") for warning in law.warnings),
        ],
    )
