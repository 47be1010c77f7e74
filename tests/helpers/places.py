"""Where things are: the checkout, and published numbers beside it, which tests skip without."""

from __future__ import annotations

from pathlib import Path

HELPERS = Path(__file__).resolve().parent
TESTS = HELPERS.parent
ROOT = TESTS.parent
PUBLISHED = ROOT.parent / "shared" / "data"
PYTHIA_EVALS = PUBLISHED / "pythia-evals"
PYTHIA_LOSSES = PUBLISHED / "pythia_pile_loss_fig1a.csv"
