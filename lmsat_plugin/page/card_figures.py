"""The saturation cards that results can fill."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from lmsat_plugin.analysis.checkpoint_values import by_step, values_of
from lmsat_plugin.analysis.downstream_average import downstream_average
from lmsat_plugin.figures.card import Track, card_figure
from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page.words import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from lmsat_plugin.analysis.analyses import Analyses
    from lmsat_plugin.analysis.saturation import Saturation

_TRACKS = (
    ("lmsat_loss", "loss", "loss\n(nats per token)", False),
    ("lmsat_anisotropy", "anisotropy_last", "anisotropy\n(last layer)", False),
    ("lmsat_head", "singular_entropy", "singular\nentropy (nats)", True),
)


def cards_of(analyses: Analyses) -> Iterator[ReportFigure]:
    """Yield a card for each model that has several checkpoints with steps: those that saturate first, then by size."""
    verdicts = {
        one.label: one for one in analyses.saturation if (one.task, one.metric) == ("lmsat_loss", "loss")
    }
    saturating = {model for model, one in verdicts.items() if one.verdict == "saturates"}
    names: set[str] = set()
    for model in sorted(analyses.sizes, key=lambda model: model not in saturating):
        tracks = _tracks(analyses, model)
        if tracks:
            verdict = verdicts.get(model) if tracks[0].label == _TRACKS[0][2] else None
            title = f"{model}: {verdict.verdict}" if verdict else model
            name = _stem(model, names)
            yield ReportFigure(
                name, title, "", _alt(model, tracks, verdict),
                partial(card_figure, model, tracks, verdict),
            )  # fmt: skip


def _tracks(analyses: Analyses, model: str) -> list[Track]:
    table = analyses.table[analyses.table.model == model]
    tracks = []
    for task, metric, label, log in _TRACKS:
        rows = by_step(values_of(table, task, metric))
        tracks.append(Track(label, rows, log and bool((rows.value > 0).all())))
    tracks.append(_downstream(table))
    return [track for track in tracks if len(track.table)]


def _downstream(table: pd.DataFrame) -> Track:
    """Return the downstream average of each checkpoint, of the tasks that all checkpoints with scores have."""
    import pandas as pd

    rows = table[table.step.notna()]
    found = downstream_average(rows.assign(model=rows.step.astype("int64").astype(str)))
    scores = {} if found is None else found.scores
    values = pd.DataFrame(
        [(int(step), *score) for step, score in scores.items()], columns=["step", "value", "stderr"]
    )
    tasks = () if found is None else found.tasks
    of = "one task" if len(tasks) == 1 else f"mean of {len(tasks)} tasks"
    return Track(f"score above chance\n({of})", by_step(values.sort_values("step").assign(model="")))


def _alt(model: str, tracks: list[Track], verdict: Saturation | None) -> str:
    said = []
    for track in tracks:
        first, last = track.table.value.iloc[0], track.table.value.iloc[-1]
        said.append(f"{track.label.replace(chr(10), ' ')} from {first:.3g} to {last:.3g}")
    if verdict is not None:
        said.append(f"best loss {verdict.best:.4g} at step {verdict.best_step}")
        if verdict.onset_step is not None:
            said.append(
                f"onset of saturation at step {verdict.onset_step} ({verdict.onset_low} to {verdict.onset_high})"
            )
    return f"{model} in training: {listed(said)}."


def _stem(model: str, taken: set[str]) -> str:
    """Return a file's stem for a model that no other card has, and take it."""
    plain = f"card-{re.sub(r'[^A-Za-z0-9.-]+', '-', model).strip('-.') or 'model'}"[:100]
    stem, number = plain, 1
    while stem.lower() in taken:
        number += 1
        stem = f"{plain}-{number}"
    taken.add(stem.lower())
    return stem
