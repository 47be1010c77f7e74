"""Saturation of each model of a table: verdict, onset, p-values and geometry (`verdicts_by`).

Shapes: K checkpoints, C cells.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lmsat_plugin.analysis.input_tables import is_tidy
from lmsat_plugin.analysis.saturation.geometry import Geometry, geometry_of
from lmsat_plugin.analysis.saturation.metric_series import DEFAULT, MetricSeries, SeriesKey, series_of
from lmsat_plugin.analysis.saturation.preparation import Cells
from lmsat_plugin.analysis.saturation.rise import Rise, Stretches, onset_of, rise_of
from lmsat_plugin.analysis.saturation.sampling import Documents, p_value_of_documents, p_value_of_stderrs
from lmsat_plugin.analysis.saturation.verdict import TOLERANCE, Judged, Verdict, judge, without_judgement
from lmsat_plugin.analysis.stats.autoregressive import stderr_of_sum
from lmsat_plugin.analysis.stats.bootstrap import Simulation
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.array_files import ArraysError
from lmsat_plugin.results.tree import Results

if TYPE_CHECKING:
    import pandas as pd

    DocumentLosses = Mapping[str, tuple[np.ndarray, np.ndarray]]

logger = logging.getLogger(__name__)

_SIMULATED_ONSETS = 1000
_OF_GEOMETRY = ("model", "at", "branch", "replicate", "corpus", "variant", "task", "metric", "value")
"""The columns by which a series' rows are chosen, and which the geometry reads."""


@dataclass(frozen=True)
class Contrast:
    """Mean of the late checkpoints minus mean of the middle ones; above 0 is worse."""

    size: float
    """In the unit of the metric; the difference of logarithms for perplexities."""
    stderr: float
    """From the checkpoint-to-checkpoint noise."""


@dataclass(frozen=True, kw_only=True)
class Saturation(SeriesKey):
    """Whether one model saturates by one metric (Godey et al. 2024, Sec. 3)."""

    verdict: Verdict
    reason: str
    axis: str
    """What all places count, one of `AXES`. Where it is not ``step``, the steps below are None."""
    best_at: int
    best_revision: str | None
    best_tokens: float | None
    """Tokens trained on until then; None if unknown."""
    best: float
    final_at: int
    final_revision: str | None
    final_tokens: float | None
    final: float
    diverged_at: int | None = None
    """The place from which on no value is finite, for the verdict ``diverged``, which judges nothing that came before.
    What is called final is then the last checkpoint before it."""
    drop_p_value: float | None
    """Of the final checkpoint alone against the best one before it; None without documents or standard errors."""
    onset_at: int | None = None
    """The place of the first risen checkpoint; None unless the verdict is ``saturates``."""
    onset_tokens: float | None = None
    onset_low: int | None = None
    onset_high: int | None = None
    """Places: ``onset_low`` and ``onset_high`` are the ends of the 90 % interval."""
    p_value: float | None
    """Of a rise at the end of the run: the larger of the p-values against checkpoint-to-checkpoint noise and against
    the sample of documents or questions. None for too few checkpoints."""
    corrected_p_value: float | None = None
    """``p_value`` corrected for the number of scores of the series (Holm 1979); None for a verdict by one metric."""
    sampling: Literal["documents", "standard errors"] | None
    """What the p-value against the sample comes from; None if only that against the noise is known."""
    late_minus_middle: Contrast | None
    noise: float | None
    """Standard deviation of one checkpoint about the curve, in the unit of ``late_minus_middle``."""
    autocorrelation: float | None
    """Of neighbouring checkpoints about the curve."""
    tolerance: float | None
    """Of ``plateaus``: the last stretch and the one before differ by less. In the unit of ``late_minus_middle``."""
    power: float | None
    """The share of runs like this one in which a rise of three ``noise`` over the last stretch would be found."""
    n_checkpoints: int
    min_at: int
    """The first place that is taken into account."""
    set_aside_at: list[int]
    """The places of single checkpoints far from their neighbours, which have no say in the verdict."""
    geometry: Geometry | None
    series: MetricSeries = field(repr=False, compare=False)
    """From ``min_at`` on."""

    @property
    def best_step(self) -> int | None:
        """The step of the best checkpoint; None on another axis."""
        return self._step(self.best_at)

    @property
    def final_step(self) -> int | None:
        """The step of the last checkpoint; None on another axis."""
        return self._step(self.final_at)

    @property
    def onset_step(self) -> int | None:
        """The step of the onset; None without one, and on another axis."""
        return self._step(self.onset_at)

    @property
    def diverged_step(self) -> int | None:
        """The step from which on no value is finite; None for other verdicts, and on another axis."""
        return self._step(self.diverged_at)

    def _step(self, at: int | None) -> int | None:
        return at if self.axis == "step" else None

    @property
    def min_step(self) -> int | None:
        """The first step that is taken into account; None on another axis."""
        return self._step(self.min_at)

    @property
    def set_aside(self) -> list[int]:
        """The steps of `set_aside_at`; empty on another axis."""
        return self.set_aside_at if self.axis == "step" else []

    def place(self, at: int) -> str:
        """Return a place of the series in words, such as ``step 1,000`` or ``220B tokens``."""
        return self.series.place(int(np.searchsorted(self.series.at_K, at)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as ``lmsat saturation --json`` prints it: all but the series."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "series"}
        values |= {name: getattr(self, name) for name in ("best_step", "final_step", "onset_step", "diverged_step")}
        values |= {"min_step": self.min_step, "set_aside": self.set_aside}
        for name in ("late_minus_middle", "geometry"):
            values[name] = None if values[name] is None else asdict(values[name])
        return values


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How series are judged; see `find_saturation`."""

    min_step: int | None
    tolerance: float | None
    repetitions: int
    seed: int


def verdicts_by(
    data: Results | pd.DataFrame,
    table: pd.DataFrame,
    task: str | None,
    metric: str | None,
    *,
    options: Judgement,
    several: bool = False,
) -> list[Saturation]:
    """Return the verdicts by one metric.

    Args:
        data: Results, or a table.
        table: Its rows by series (`in_series`).
        task, metric: See `series_of`.
        options: See `find_saturation`.
        several: Whether this is one of several metrics. Then series without a checkpoint from ``min_step`` on are left
            out.

    Raises:
        LmsatError: As `find_saturation`.
    """
    documents: DocumentLosses = {}
    if isinstance(data, Results) and task in (None, DEFAULT[0]):
        documents = document_losses(data)
    verdicts = []
    # To choose rows takes the longer the more rows and columns there are.
    narrow = table[[name for name in _OF_GEOMETRY if name in table.columns]] if is_tidy(table) else table
    by_model = dict(list(narrow.groupby("model", sort=False))) if is_tidy(table) else {}
    for whole in series_of(table, task, metric):
        series = whole.since(options.min_step)
        if not len(series.at_K) and whole.diverged is not None:
            series = whole
        if not len(series.at_K):
            if several:
                continue
            raise LmsatError(
                f"{whole.label} has no checkpoint from {whole.axis} {options.min_step} on: "
                f"set --min-step below {whole.at_K[-1]}"
            )
        rows = (
            rows_of(data, by_model.get(series.model, narrow), series)
            if is_tidy(table) and series.axis == "step"
            else None
        )
        simulation = Simulation(options.repetitions, np.random.default_rng(options.seed))
        paired = _paired(series, documents)
        verdicts.append(_saturation(series, rows, paired, options.tolerance, simulation=simulation))
    return verdicts


def document_losses(results: Results) -> DocumentLosses:
    """Return nats and tokens by document for each result file whose lmsat_loss has arrays, by its path."""
    losses = {}
    rows = results.table[(results.table.task == DEFAULT[0]) & (results.table.metric == DEFAULT[1])]
    for path in rows.path.unique():
        try:
            arrays = results.arrays(path, DEFAULT[0], "loss/by_document")
            losses[path] = arrays["loss/by_document"], arrays["loss/by_document_tokens"]
        except ArraysError as error:
            logger.warning("Left out: %s", error)
        except (LmsatError, KeyError) as error:
            logger.info("No losses by document: %s", error)
    return losses


def rows_of(data: Results | pd.DataFrame, table: pd.DataFrame, series: MetricSeries) -> pd.DataFrame:
    """Return the rows of the series and corpus, and the series' rows of no corpus, with their places as ``step``.

    Rows of no corpus are those of probes that read the weights alone. For a series of no corpus, such as a downstream
    score, the rows of the only corpus are returned, if there is just one.
    """
    rows = table[(table.model == series.model) & (table["at"] >= series.at_K[0])].assign(step=lambda own: own["at"])
    rows = rows[
        rows.branch.map(lambda branch: branch if isinstance(branch, str) else None).fillna("") == (series.stage or "")
    ]
    if rows.replicate.notna().any():
        rows = rows[rows.replicate.fillna("") == (series.run or "")]
    if "corpus" in rows.columns:
        only = series.corpus or (rows.corpus.dropna().iloc[0] if rows.corpus.nunique() == 1 else None)
        rows = rows[rows.corpus.isna() | (rows.corpus == only)]
    if "variant" not in rows.columns:
        return rows
    without_text = data.model_variant(series.variant) if isinstance(data, Results) else series.variant
    variants = rows.variant.fillna("")
    wanted = rows.corpus.isna().map({True: without_text or "", False: series.variant or ""})
    return rows[variants == wanted]


def _paired(series: MetricSeries, documents: DocumentLosses) -> Documents | None:
    """Return the losses by document; None unless all checkpoints have them, on the same documents."""
    parts = [documents[path] for path in series.paths if path in documents]
    if not parts or len(parts) < len(series.at_K):
        return None
    tokens_M = np.asarray(parts[0][1], dtype=np.float64)
    if len(tokens_M) < 2 or any(not np.array_equal(tokens_M, tokens) for _, tokens in parts):
        return None
    nats_KM = np.array([nats for nats, _ in parts], dtype=np.float64)
    # Arrays that do not give the table's losses belong to another measurement.
    same = np.allclose(nats_KM.sum(1) / tokens_M.sum(), series.values_K, rtol=1e-6)
    return Documents(nats_KM=nats_KM, tokens_M=tokens_M) if same else None


def _saturation(
    series: MetricSeries,
    rows: pd.DataFrame | None,
    documents: Documents | None,
    tolerance: float | None,
    *,
    simulation: Simulation,
) -> Saturation:
    best = int(series.losses_K.argmin())
    at_K = series.at_K
    rise = p_value = drop_p_value = None
    onset: dict[str, Any] = {}
    cells = Cells.of(at_K, series.losses_K)
    values_C = cells.weights_CK @ series.losses_K
    sampling: Literal["documents", "standard errors"] | None = None
    unjudged = without_judgement(series, len(values_C))
    if unjudged is not None:
        verdict, reason = unjudged
    else:
        if documents is not None or series.errors_K is not None:
            sampling = "standard errors" if documents is None else "documents"
        rise = rise_of(cells, at_K, values_C, simulation.repetitions)
        by_sample = _sampling_p_value(series, documents, cells, last=rise.last, simulation=simulation)
        drop_p_value = _sampling_p_value(series, documents, cells, last=1, simulation=simulation)
        p_value = max(rise.p_value, by_sample or 0.0)
        tolerance = tolerance or _tolerance(series, rise)
        verdict, reason = judge(
            Judged(series=series, cells=cells, values_C=values_C, rise=rise, p_value=p_value, tolerance=tolerance)
        )
    if verdict == "saturates":
        assert rise is not None
        simulation = replace(simulation, repetitions=_SIMULATED_ONSETS)
        ends = onset_of(np.log(at_K[cells.last_C]), values_C, rise, simulation)
        below, first, risen = int(cells.last_C[ends.low]), int(cells.first_C[ends.first]), int(cells.last_C[ends.high])
        reason += f"; it left that level between {series.places(below, risen, 'and')}"
        onset = {"onset_at": int(at_K[first]), "onset_low": int(at_K[below]), "onset_high": int(at_K[risen])}
        onset["onset_tokens"] = series.tokens_at(first)
    if cells.set_aside and rise is not None:
        reason += f"; set aside, far from the checkpoints around {_set_aside(series, cells)}"
    if series.stages:
        reason += f"; these are its stages {', '.join(series.stages)}, one after another"
    if series.axis == "order":
        reason += "; its checkpoints are by the order of their names, which state no step, tokens or words"
    geometry = None if rows is None else geometry_of(rows, at_K, series.losses_K, int(at_K[best]))
    return Saturation(
        **{item.name: getattr(series, item.name) for item in fields(SeriesKey)},
        verdict=verdict,
        reason=reason,
        axis=series.axis,
        best_at=int(at_K[best]),
        best_revision=series.names[best] if series.names else None,
        best_tokens=series.tokens_at(best),
        best=float(series.values_K[best]),
        final_at=int(at_K[-1]),
        final_revision=series.names[-1] if series.names else None,
        final_tokens=series.tokens_at(-1),
        final=float(series.values_K[-1]),
        diverged_at=None if series.diverged is None else series.diverged.at,
        drop_p_value=drop_p_value,
        **onset,
        p_value=p_value,
        sampling=sampling,
        late_minus_middle=None if rise is None else _late_minus_middle(values_C, rise),
        noise=None if rise is None else rise.sigma,
        autocorrelation=None if rise is None else rise.phi,
        tolerance=None if rise is None else tolerance,
        power=None if rise is None else rise.power,
        n_checkpoints=len(at_K),
        min_at=int(at_K[0]),
        set_aside_at=[] if rise is None else [int(at_K[index]) for index in cells.set_aside],
        geometry=None if geometry == Geometry() else geometry,
        series=series,
    )


def _tolerance(series: MetricSeries, rise: Rise) -> float:
    error = 0.0 if series.errors_K is None else float(np.median(series.errors_K))
    return TOLERANCE * float(np.hypot(rise.sigma, error))


def _set_aside(series: MetricSeries, cells: Cells) -> str:
    """Return what is set aside, in words, such as ``it: step 1,000 (3.51)``."""
    named = [f"{series.place(index)} ({series.values_K[index]:.4g})" for index in cells.set_aside]
    return f"{'it' if len(named) == 1 else 'them'}: {', '.join(named)}"


def _sampling_p_value(
    series: MetricSeries, documents: Documents | None, cells: Cells, *, last: int, simulation: Simulation
) -> float | None:
    weights_CK = cells.weights_CK
    stretches = Stretches.of(len(weights_CK), last)
    if documents is not None:
        own = replace(documents, nats_KM=weights_CK @ documents.nats_KM)
        return p_value_of_documents(own, stretches, simulation)
    if series.errors_K is None:
        return None
    errors_C = np.sqrt(weights_CK**2 @ series.errors_K**2)
    return p_value_of_stderrs(weights_CK @ series.losses_K, errors_C, stretches, simulation)


def _late_minus_middle(values_C: np.ndarray, rise: Rise) -> Contrast:
    """Compare the last stretch with as many cells around 45 % of the run, where the two do not overlap."""
    size = len(values_C)
    stop = min(round(0.45 * size + rise.last / 2), size - rise.last)
    weights_C = np.zeros(size)
    weights_C[max(0, stop - rise.last) : stop] = -1 / min(stop, rise.last)
    weights_C[size - rise.last :] = 1 / rise.last
    return Contrast(size=float(weights_C @ values_C), stderr=stderr_of_sum(weights_C, rise.sigma, rise.phi))
