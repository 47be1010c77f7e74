"""Does a model saturate: from when, how surely, and what else happened then.

Shapes: K checkpoints.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lmsat_plugin.analysis.saturation.geometry import Geometry, geometry_of
from lmsat_plugin.analysis.saturation.noise import without_outliers
from lmsat_plugin.analysis.saturation.onset import onset_of
from lmsat_plugin.analysis.saturation.rise import Rise, Stretches, error_of, rise_of
from lmsat_plugin.analysis.saturation.sampling import Documents, p_value_of_documents, p_value_of_stderrs
from lmsat_plugin.analysis.saturation.series import Series, series_of
from lmsat_plugin.analysis.tables import is_tidy
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.figure import Figure

Verdict = Literal["saturates", "plateaus", "improving", "unclear"]

SIGNIFICANT = 0.05
_ONE_SIDED = 1.645
_LEAST_CHECKPOINTS = 8
_SIMULATED_ONSETS = 1000
# A change of the late part that is smaller than this share of the whole gain is none.
_NEGLIGIBLE = 0.2
_BUMP = 3.0
_LEAST_BUMP = 3


@dataclass(frozen=True)
class Contrast:
    """Mean of the late checkpoints minus mean of the middle ones; above 0 is worse."""

    size: float
    """In the unit of the metric; the difference of logarithms for perplexities."""
    stderr: float
    """From the wobble of checkpoints about their curve."""


@dataclass(frozen=True)
class Saturation:
    """What one metric of one model says of saturation (Godey et al. 2024, Sec. 3)."""

    model: str
    task: str | None
    metric: str
    corpus: str | None
    num_fewshot: int | None
    filter: str | None
    verdict: Verdict
    reason: str
    best_step: int
    best_tokens: float | None
    """Tokens trained on until then; None if the table does not say it."""
    best: float
    final_step: int
    final_tokens: float | None
    final: float
    drop_p_value: float | None
    """Of the single final checkpoint against the best of all before it; None without documents or standard errors."""
    onset_step: int | None
    """The first risen checkpoint; None unless the verdict is ``saturates``."""
    onset_tokens: float | None
    onset_low: int | None
    onset_high: int | None
    p_value: float | None
    """Of the last stretch against the best before it: the larger of what the wobble of checkpoints and what the
    sample of documents give. None for too few checkpoints."""
    sampling: Literal["documents", "standard errors"] | None
    """What the sample's part in ``p_value`` comes from; None if the wobble alone was known."""
    late_minus_middle: Contrast | None
    noise: float | None
    """Standard deviation of one checkpoint about its curve, in the unit of ``late_minus_middle``."""
    autocorrelation: float | None
    """Of neighbouring checkpoints about their curve."""
    n_checkpoints: int
    min_step: int
    """The first step that was taken into account."""
    outlying_steps: list[int]
    """Single checkpoints far from those around them, which have no say in the verdict."""
    geometry: Geometry | None
    series: Series = field(repr=False, compare=False)
    """From ``min_step`` on."""

    def facts(self) -> dict[str, Any]:
        """Return all but the series, as plain data."""
        kept = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "series"}
        for name in ("late_minus_middle", "geometry"):
            kept[name] = None if kept[name] is None else asdict(kept[name])
        return kept

    def plot(self) -> Figure:
        """Draw the series with its best checkpoint and the onset."""
        from lmsat_plugin.report.saturation_figure import saturation_figure

        return saturation_figure([self])


def saturation(
    table: pd.DataFrame,
    task: str | None = None,
    metric: str | None = None,
    *,
    min_step: int | None = None,
    documents: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    repetitions: int = 2000,
    seed: int = 0,
) -> list[Saturation]:
    """Return the verdict on each model of a table.

    A model saturates if the mean of its last checkpoints is above that of its best stretch before them, by more than
    both the wobble of its checkpoints (`rise_of`) and its sample of documents or questions give by chance, each
    corrected for choosing the best of many: p < 0.05. It is improving if its second half falls, and plateaus if the
    change is none worth speaking of; else it is unclear.

    Args:
        table: See `series_of`; a tidy table may hold the geometry, too.
        task: See `series_of`.
        metric: See `series_of`.
        min_step: What comes before is left out; by default a hundredth of the last step.
        documents: By the table's ``path``: a checkpoint's nats and tokens by document, shapes [M], float64.
        repetitions: Of each simulation.
        seed: Of all that is random.

    Raises:
        LmsatError: See `series_of`; and if no checkpoint is left from ``min_step`` on.
    """
    found = []
    for series in series_of(table, task, metric):
        kept = series.since(min_step)
        if not len(kept.steps_K):
            raise LmsatError(
                f"{series.model} has no checkpoint from step {min_step} on: set --min-step below {series.steps_K[-1]}"
            )
        its = None
        if is_tidy(table) and "step" in table.columns:
            its = table[(table.model == series.model) & (table.step >= kept.steps_K[0])]
        found.append(_judge(kept, its, _paired(kept, documents or {}), repetitions, seed))
    return found


def _paired(series: Series, documents: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Documents | None:
    """Return the losses by document if all checkpoints have them, on the same documents, and they give the values."""
    parts = [documents[path] for path in series.paths if path in documents]
    if not parts or len(parts) < len(series.steps_K):
        return None
    tokens_M = np.asarray(parts[0][1], dtype=np.float64)
    if len(tokens_M) < 2 or any(not np.array_equal(tokens_M, tokens) for _, tokens in parts):
        return None
    nats_KM = np.array([nats for nats, _ in parts], dtype=np.float64)
    same = np.allclose(nats_KM.sum(1) / tokens_M.sum(), series.values_K, rtol=1e-6)
    return Documents(nats_KM, tokens_M) if same else None


def _judge(
    series: Series, results: pd.DataFrame | None, documents: Documents | None, repetitions: int, seed: int
) -> Saturation:
    rng = np.random.default_rng(seed)
    best = int(series.losses_K.argmin())
    steps, size = series.steps_K, len(series.steps_K)
    rise = onset = p_value = drop_p_value = None
    filtered_K = without_outliers(series.losses_K[None])[0]
    sampling: Literal["documents", "standard errors"] | None = None
    if size >= _LEAST_CHECKPOINTS:
        if documents is not None or series.errors_K is not None:
            sampling = "standard errors" if documents is None else "documents"
        rise = rise_of(np.log(steps), filtered_K, repetitions, rng)
        by_sample = _sampling_p(series, documents, rise.last, repetitions, rng)
        drop_p_value = _sampling_p(series, documents, 1, repetitions, rng)
        p_value = max(rise.p_value, by_sample or 0.0)
    verdict, reason = _verdict(series, filtered_K, rise, p_value)
    if verdict == "saturates":
        assert rise is not None
        onset = onset_of(np.log(steps), series.losses_K, rise, _SIMULATED_ONSETS, rng)
        reason += f"; it left that level between steps {steps[onset.low]:,} and {steps[onset.high]:,}"
    geometry = None
    if results is not None:
        geometry = geometry_of(results, steps, series.losses_K, int(steps[best]))
    return Saturation(
        series.model,
        series.task,
        series.metric,
        series.corpus,
        series.num_fewshot,
        series.filter,
        verdict,
        reason,
        int(steps[best]),
        series.tokens_at(best),
        float(series.values_K[best]),
        int(steps[-1]),
        series.tokens_at(-1),
        float(series.values_K[-1]),
        drop_p_value,
        None if onset is None else int(steps[onset.first]),
        None if onset is None else series.tokens_at(onset.first),
        None if onset is None else int(steps[onset.low]),
        None if onset is None else int(steps[onset.high]),
        p_value,
        sampling,
        None if rise is None else _late_minus_middle(filtered_K, rise),
        None if rise is None else rise.sigma,
        None if rise is None else rise.phi,
        size,
        int(steps[0]),
        [int(step) for step in steps[filtered_K != series.losses_K]],
        None if geometry == Geometry() else geometry,
        series,
    )


def _sampling_p(
    series: Series, documents: Documents | None, last: int, repetitions: int, rng: np.random.Generator
) -> float | None:
    stretches = Stretches.of(len(series.steps_K), last)
    if documents is not None:
        return p_value_of_documents(documents, stretches, repetitions, rng)
    if series.errors_K is None:
        return None
    return p_value_of_stderrs(series.losses_K, series.errors_K, stretches, repetitions, rng)


def _late_minus_middle(values_K: np.ndarray, rise: Rise) -> Contrast:
    """Contrast the last stretch with as many checkpoints around 45 % of the run, as far as they are apart."""
    size = len(values_K)
    stop = min(round(0.45 * size + rise.last / 2), size - rise.last)
    weights_K = np.zeros(size)
    weights_K[max(0, stop - rise.last) : stop] = -1 / min(stop, rise.last)
    weights_K[size - rise.last :] = 1 / rise.last
    return Contrast(float(weights_K @ values_K), error_of(weights_K, rise.sigma, rise.phi))


def _verdict(
    series: Series, values_K: np.ndarray, rise: Rise | None, p_value: float | None
) -> tuple[Verdict, str]:
    size, steps = len(series.steps_K), series.steps_K
    if rise is None or p_value is None:
        return "unclear", (
            f"{size} checkpoint{'s' * (size > 1)} from step {steps[0]:,} on cannot tell a trend from the wobble of "
            f"single ones: measure at least {_LEAST_CHECKPOINTS}"
        )
    if (never := _at_chance(series)) is not None:
        return "unclear", never
    last = f"its last {rise.last} checkpoints (from step {steps[-rise.last]:,})"
    best = f"its best stretch (steps {steps[rise.first]:,} to {steps[rise.stop - 1]:,})"
    if p_value < SIGNIFICANT:
        return "saturates", (
            f"{last} are {_words(series, rise.size)} worse than {best}, {rise.size / rise.sigma:.1f} times the wobble "
            f"of single checkpoints, p = {p_value:.2g}"
        )
    if rise.p_value < SIGNIFICANT:
        return "unclear", (
            f"{last} are {_words(series, rise.size)} worse than {best}, more than wobble explains, but the "
            f"sample of {'questions' if series.higher_is_better else 'text'} may give as much (p = {p_value:.2g}): "
            "measure more"
            f"{', or keep losses by document with arrays=DIR' if series.metric == 'loss' else ''}"
        )
    bump = _bump(series, values_K, rise)
    slope, error = _slope(np.log(steps), values_K, rise)
    if rise.size < 0 and slope < -_ONE_SIDED * error:
        return "improving", f"{last} are {_words(series, -rise.size)} better than {best}{bump}"
    gain = values_K[0] - float(values_K[rise.first : rise.stop].mean())
    if abs(rise.size) + _ONE_SIDED * rise.stderr < _NEGLIGIBLE * gain:
        direction = "worse" if rise.size > 0 else "better"
        return "plateaus", (
            f"{last} are {_words(series, abs(rise.size))} {direction} than {best}, which wobble alone explains "
            f"(p = {p_value:.2g}){bump}"
        )
    return "unclear", (
        f"{last} are {_words(series, abs(rise.size))} {'worse' if rise.size > 0 else 'better'} than {best}, which "
        f"the wobble of single checkpoints, {_words(series, rise.sigma)}, can hide or feign (p = {p_value:.2g}){bump}: "
        "measure more checkpoints, or more text or questions"
    )


def _at_chance(series: Series) -> str | None:
    """Return a sentence if a score never clearly leaves what guessing gives."""
    chance = series.chance
    if chance is None or series.stderr_K is None:
        return None
    away_K = (series.values_K - chance) * (1 if series.higher_is_better else -1)
    above = int((away_K > 2 * series.stderr_K).sum())
    if above >= max(3, len(away_K) // 4):
        return None
    return f"{above} of {len(away_K)} checkpoints are clearly better than guessing, {chance:g}: nothing can be lost"


def _slope(log_steps_K: np.ndarray, values_K: np.ndarray, rise: Rise) -> tuple[float, float]:
    """Return the slope of the second half of the checkpoints by ln(step), and its standard error."""
    weights_K = np.zeros(len(values_K))
    half = slice(len(values_K) // 2, None)
    centred = log_steps_K[half] - log_steps_K[half].mean()
    weights_K[half] = centred / (centred**2).sum()
    return float(weights_K @ values_K), error_of(weights_K, rise.sigma, rise.phi)


def _bump(series: Series, values_K: np.ndarray, rise: Rise) -> str:
    """Describe the longest time that the values were clearly above the level to which they came back."""
    level = float(values_K[rise.first : rise.stop].mean())
    # The edges of a bump are part of the wobble, but few of the differences between neighbours.
    scale = float(np.median(np.abs(np.diff(values_K)))) / (0.6745 * np.sqrt(2))
    high = values_K > level + _BUMP * scale
    high[: int(np.flatnonzero(values_K <= level + scale)[0])] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[0], high.astype(int), [0]])))
    runs = [(stop - first, first, stop) for first, stop in zip(edges[::2], edges[1::2], strict=True)]
    length, first, stop = max(runs, default=(0, 0, 0))
    if length < _LEAST_BUMP:
        return ""
    height = _words(series, float(values_K[first:stop].max()) - level)
    return (
        f"; between steps {series.steps_K[first]:,} and {series.steps_K[stop - 1]:,} it was up to {height} worse, "
        "and came back"
    )


def _words(series: Series, size: float) -> str:
    """Return a difference of `Series.losses_K` for people."""
    if series.is_ratio:
        return f"{100 * np.expm1(size):.3g} % of perplexity"
    if series.higher_is_better:
        return f"{100 * size:.3g} points"
    unit = " nats" if series.metric == "loss" else ""
    return f"{size:.3g}{unit} ({100 * size / abs(series.values_K[-1]):.2g} %)"
