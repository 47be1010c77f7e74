"""The report: one HTML page that needs nothing else, with its figures and tables as files beside it."""

from __future__ import annotations

import re
from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.files import check_writable, write_atomically
from lmsat_plugin.page.figure_files import write_figures
from lmsat_plugin.page.missing import missing_analyses
from lmsat_plugin.page.tables import Table, tables_of
from lmsat_plugin.page.verdicts import verdicts_of
from lmsat_plugin.ranking.formats import page_template
from lmsat_plugin.results.series import SERIES
from lmsat_plugin.version import __version__

ROWS = 50
"""Rows of a table that are shown at once."""
_ON_PAPER = 16
"""Columns up to which a table is printed on paper."""
_OWN_FILE = re.compile(r'<a href="(figures/[\w.-]+)" aria-label="[^"]* as (?:SVG|PNG|PDF)"|download="([a-z]+\.csv)"')
"""How a report's page names the files beside it."""
_INLINE = 100_000
"""Letters up to which the page itself holds a table's CSV."""


def write_report(analyses: Analyses, folder: Path) -> Path:
    """Write ``index.html``, figures and CSV files into a folder. Return the page's path.

    Raises:
        LmsatError: If the folder cannot be written.
    """
    check_writable(folder)
    tables = tables_of(analyses, folder)
    for table in tables:
        write_atomically(folder / f"{table.name}.csv", table.csv.encode("utf-8"))
    figures = write_figures(analyses, folder)
    page = folder / "index.html"
    html = page_template("lmsat_plugin.page", "page.html").render(
        name=analyses.results.root.absolute().name,
        summary=_summary(analyses),
        verdicts=verdicts_of(analyses),
        figures=figures,
        tables=tables,
        downloads={table.name: _download(table) for table in tables},
        missing=missing_analyses(analyses),
        rows_at_once=ROWS,
        columns_on_paper=_ON_PAPER,
    )
    written = [f"{table.name}.csv" for table in tables] + [file for shown in figures for file in shown.files]
    _remove_earlier(page, set(written))
    write_atomically(page, html.encode("utf-8"))
    return page


def _remove_earlier(page: Path, written: set[str]) -> None:
    """Remove the files of the report that was in the folder before, as far as this one has not written them."""
    with suppress(OSError):
        named = re.findall(_OWN_FILE, page.read_bytes().decode("utf-8", "replace"))
        for file in {file for pair in named for file in pair if file} - written:
            (page.parent / file).unlink(missing_ok=True)


def _summary(analyses: Analyses) -> dict[str, str]:
    """Return the numbers of models, series, checkpoints and values, the corpus and the dates, each by its title."""
    table = analyses.table
    models, series = (
        len(analyses.results.series[keys].drop_duplicates()) for keys in (["model", "variant"], [*SERIES])
    )
    days = sorted({f"{date:%Y-%m-%d}" for date in table.date.dropna().unique()})
    summary = {
        "Models": f"{models:,}",
        "Series": f"{series:,}" if series > models else "",
        "Checkpoints": f"{len(table[['model', 'revision']].drop_duplicates()):,}",
        "Values": f"{len(table):,}",
        "Corpus": ", ".join(map(str, table.corpus.dropna().unique())),
        "Measured": " to ".join(dict.fromkeys([*days[:1], *days[-1:]])),
        "Report": f"lmsat {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    return {title: text for title, text in summary.items() if text}


def _download(table: Table) -> dict[str, Any]:
    """Return the link to a table's CSV: the page itself holds a small one, a large one is in a file beside it."""
    file = f"{table.name}.csv"
    if len(table.csv) > _INLINE:
        return {"href": file, "file": file}
    data = b64encode(table.csv.encode("utf-8")).decode()
    return {"href": f"data:text/csv;charset=utf-8;base64,{data}", "file": file}
