"""The loss of every token, measured later by a sweep over tiny models, beside what else was measured of it."""

from __future__ import annotations

import pytest

from lmsat_plugin.analysis.learning import find_learning
from lmsat_plugin.analysis.learning.changes import POSITIONS
from lmsat_plugin.cli.main import main
from lmsat_plugin.results import Results
from lmsat_plugin.text.frequencies import THIRDS


def test_a_sweep_whose_tokens_were_measured_later(configure, tmp_path):
    """Tokens, documents, positions and frequencies were summed apart from each other, and agree."""
    for settings in ({}, {"token_losses": True}):
        # In short windows, whose positions differ between the policies.
        changes = {"metadata": {"prefix": "window", **settings}, "model_args": {"max_length": 16}}
        assert main(["sweep", str(configure(tasks=["lmsat_loss"], **changes))]) == 0
        if not settings:
            bounded = find_learning(Results.read(tmp_path / "out"), repetitions=0)
    (run,), (least,) = find_learning(Results.read(tmp_path / "out"), repetitions=0), bounded
    assert [change.at for change in run.changes] == [10, 100]
    for exact, bound in zip(run.changes, least.changes, strict=True):
        assert exact.change == pytest.approx(bound.change, rel=1e-4)
        assert exact.parts.keys() == bound.parts.keys() == {*THIRDS, *POSITIONS}
        for name, part in exact.parts.items():
            assert part.change == pytest.approx(bound.parts[name].change, abs=1e-6), name
        assert 0 <= bound.interference_at_least <= exact.interference + 1e-9
        assert 0 < exact.worse < 1
