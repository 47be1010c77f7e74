"""Text for probes that train, apart from what they measure."""

from __future__ import annotations

import pytest
from sample_texts import sample_texts


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return sample_texts()
