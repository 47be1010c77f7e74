"""How the geometry's events have preceded onsets in other runs: evidence beside a forecast, which does not use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from lmsat_plugin.analysis.saturation.by_model import Saturation

LEAST_RUNS = 3
"""Fewer other runs with geometry say nothing."""
EVENTS = {
    "anisotropy_jump_step": "the last layer's anisotropy rose most steeply",
    "anisotropy_above_half_step": "the last layer's anisotropy came to stay above 0.5",
    "entropy_turn_step": "the head's singular entropy came to its least value",
    "entropy_spike_step": "the head's singular entropy rose most steeply",
}
"""What may turn in `Geometry`, in words."""


@dataclass(frozen=True, kw_only=True)
class Precedent:
    """How one event of the geometry has preceded onsets in the other runs at hand."""

    event: str
    """The attribute of `Geometry`."""
    here_at: int | None
    """Its step in this run so far; None if it has not come."""
    saturating: int
    """Other runs with geometry that saturate."""
    before_onset: int
    """Of these, those in which it came no later than the onset."""
    median_lead: float | None
    """In these, the steps from the event to the onset."""
    not_saturating: int
    """Other runs with geometry that do not saturate."""
    without_onset: int
    """Of these, those in which it came as well."""

    def sentence(self) -> str:
        """Return the precedent in words."""
        here = "not so far" if self.here_at is None else f"at step {self.here_at:,}"
        lead = "" if self.median_lead is None else f" ({self.median_lead:,.0f} steps before it in the median)"
        return (
            f"{EVENTS[self.event]} {here}; in other runs before the onset in {self.before_onset} of {self.saturating} "
            f"that saturate{lead}, and in {self.without_onset} of {self.not_saturating} that do not"
        )


def precedents_of(result: Saturation, others: Sequence[Saturation]) -> list[Precedent] | None:
    """Return each event's precedents in the other runs of the same metric.

    None for fewer than three with geometry. Runs without a p-value, which are not judged, do not count.
    """
    known = [(other, other.geometry) for other in others if other.p_value is not None and other.geometry is not None]
    known = [(other, geometry) for other, geometry in known if any(getattr(geometry, event) for event in EVENTS)]
    if len(known) < LEAST_RUNS:
        return None
    found = []
    for event in EVENTS:
        steps = [(other.onset_step, getattr(geometry, event)) for other, geometry in known]
        leads = [onset - step for onset, step in steps if None not in (onset, step) and step <= onset]
        saturating = sum(onset is not None for onset, _ in steps)
        found.append(
            Precedent(
                event=event,
                here_at=None if result.geometry is None else getattr(result.geometry, event),
                saturating=saturating,
                before_onset=len(leads),
                median_lead=median(leads) if leads else None,
                not_saturating=len(steps) - saturating,
                without_onset=sum(onset is None and step is not None for onset, step in steps),
            )
        )
    return found
