"""The report: one HTML page that needs nothing else, with its figures and tables as files beside it."""

from __future__ import annotations

import re
from base64 import b64encode
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.files import check_writable, write_atomically
from lmsat_plugin.glossary import WORDS
from lmsat_plugin.page.chart_data import chart_data
from lmsat_plugin.page.explained import explained, meaning
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
_SCRIPTS = (*("data", "scales", "view", "panel", "figures", "downloads", "canvas", "arrays", "checkpoint"), "explore")
"""The charts' scripts, each of which uses those before it."""
_RELOAD = ' data-reload="{}"'
_INLINE = 100_000
"""Letters up to which the page itself holds a table's CSV."""


def write_report(analyses: Analyses, folder: Path, *, reload_every: float | None = None) -> Path:
    """Write ``index.html``, figures and CSV files into a folder. Return the page's path.

    Args:
        analyses: What the report is on.
        folder: Where it goes.
        reload_every: Seconds after which an open page loads itself again, in the view that its reader has chosen.

    Raises:
        LmsatError: If the folder cannot be written.
    """
    check_writable(folder)
    tables = tables_of(analyses, folder)
    for table in tables:
        write_atomically(folder / f"{table.name}.csv", table.csv.encode("utf-8"))
    charts = chart_data(analyses)
    figures = [replace(shown, panels=charts.panels(shown.figure)) for shown in write_figures(analyses, folder)]
    page = folder / "index.html"
    filters = {"explained": explained, "meaning": meaning, "compact": _compact}
    template = page_template("lmsat_plugin.page", "page.html", filters)
    html = template.render(
        name=analyses.results.root.absolute().name,
        summary=_summary(analyses),
        verdicts=verdicts_of(analyses),
        figures=figures,
        tables=tables,
        downloads={table.name: _download(table) for table in tables},
        missing=missing_analyses(analyses),
        words=WORDS,
        rows_at_once=ROWS,
        columns_on_paper=_ON_PAPER,
        reload=Markup("") if reload_every is None else Markup(_RELOAD).format(reload_every),
        chart_data=_compact(charts.content),
        chart_scripts=_assets("uplot/uPlot.iife.min.js", *(f"{name}.js" for name in _SCRIPTS)),
        chart_style=_assets("uplot/uPlot.min.css", "charts.css"),
    )
    written = [f"{table.name}.csv" for table in tables] + [file for shown in figures for file in shown.files]
    _remove_earlier(page, set(written))
    write_atomically(page, html.encode("utf-8"))
    return page


def end_reloading(page: Path) -> None:
    """Let a page that `write_report` has written no longer load itself again."""
    text = page.read_bytes().decode("utf-8")
    write_atomically(page, re.sub(_RELOAD.format(r"[\d.e+-]+"), "", text, count=1).encode("utf-8"))


def _compact(content: Any) -> Markup:
    """Return JSON without spaces, safe within HTML. Raises ValueError for numbers that are not finite."""
    return htmlsafe_json_dumps(content, separators=(",", ":"), allow_nan=False)


def _assets(*names: str) -> Markup:
    """Return files of the package's folder ``assets``, one after another. They are ours, or checked by their digest."""
    folder = files("lmsat_plugin.page") / "assets"
    return Markup("\n".join(folder.joinpath(name).read_text("utf-8") for name in names))


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
