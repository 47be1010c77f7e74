"""Configurations for conversions."""

from __future__ import annotations

import pytest
from tiny_models import configs


@pytest.fixture(scope="session")
def config_of(tokenizer, tmp_path_factory):
    """Return a function that returns a folder with the configuration of a tiny model, changed, and the tokenizer."""

    def config_of(architecture: str = "llama", **changes):
        folder = tmp_path_factory.mktemp("config")
        config = configs()[architecture]
        for name, value in changes.items():
            setattr(config, name, value)
        config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return config_of


@pytest.fixture(scope="session")
def config(config_of):
    return config_of()
