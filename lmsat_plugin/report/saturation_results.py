"""Verdicts on what a tree of results, or a CSV, holds: with the losses by document where the results name them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lmsat_plugin.analysis.saturation import Saturation, saturation
from lmsat_plugin.analysis.saturation.series import DEFAULT
from lmsat_plugin.analysis.tables import is_tidy
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.harness.arrays import arrays_of
from lmsat_plugin.report.rank_results import file_of

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd

logger = logging.getLogger(__name__)


def find_saturation(
    table: pd.DataFrame, root: Path, task: str | None, metric: str | None, min_step: int | None
) -> list[Saturation]:
    """Return the verdicts on a table that was read from ``root``, a folder, a result file or a CSV.

    Raises `LmsatError` as `saturation` does. Losses by document that cannot be read are left out.
    """
    documents = {}
    if is_tidy(table) and root.suffix.lower() != ".csv" and task in (None, DEFAULT[0]):
        documents = losses_by_document(table, root)
    return saturation(table, task, metric, min_step=min_step, documents=documents)


def losses_by_document(table: pd.DataFrame, root: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return nats and tokens by document of each result of lmsat_loss that names its arrays, by its path."""
    found = {}
    rows = table[(table.task == DEFAULT[0]) & (table.metric == DEFAULT[1])]
    for path in rows.path.unique():
        try:
            arrays = arrays_of(file_of(path, root), ("loss/by_document",))
            found[path] = arrays["loss/by_document"], arrays["loss/by_document_tokens"]
        except (LmsatError, KeyError) as error:
            logger.info("No losses by document: %s", error)
    return found
