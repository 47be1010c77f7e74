"""A cache of the test's own, and one training that several tests look at."""

from __future__ import annotations

import pytest
from rank_head_runs import train
from tiny_models import make_model


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LMSAT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def trained(tokenizer, texts, tmp_path_factory):
    """Return a training's outcome, and the folder with its heads."""
    heads = tmp_path_factory.mktemp("heads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMSAT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return train(make_model("gpt_neox"), tokenizer, texts, heads=str(heads)), heads
