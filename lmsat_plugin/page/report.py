"""The report: one HTML file that needs nothing else, with its figures and tables as files beside it."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jinja2

from lmsat_plugin.files import check_writable, write_atomically
from lmsat_plugin.page.images import write_figures
from lmsat_plugin.page.tables import Table, tables_of
from lmsat_plugin.page.verdicts import verdicts_of
from lmsat_plugin.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from lmsat_plugin.analysis.analyses import Analyses

ROWS = 50
"""How many rows of a table are shown at once."""
_ON_PAPER = 16
"""How many columns of a table are printed."""
_INLINE = 100_000
"""Letters of a CSV up to which the page itself holds it."""
_ANALYSES = {
    "saturation": (
        "Saturation",
        "It takes lmsat_loss at 8 checkpoints of a model or more, and names that state the step, or --step-pattern RE. "
        "By a score: lmsat saturation DIR --task T --metric M.",
    ),
    "emergence": (
        "Emergence",
        "It takes lmsat_loss and scores at 12 checkpoints of 3 models or more, under the same names.",
    ),
    "law": (
        "Scaling law",
        "It takes lmsat_loss of models of several sizes and numbers of tokens; --tokens-per-step N tells these "
        "where names state steps alone.",
    ),
    "ranks": ("Rank of the LM head", ""),
    "context": ("Loss by position in the context", ""),
}
"""What an analysis is called, and what it takes where its own sentence is about something else."""


def write_report(analyses: Analyses, folder: Path) -> Path:
    """Write ``index.html``, figures and CSV files into a folder; return the page's path.

    Raises `LmsatError` where the folder cannot be written.
    """
    check_writable(folder)
    tables = tables_of(analyses, folder)
    for table in tables:
        write_atomically(folder / f"{table.name}.csv", table.csv.encode("utf-8"))
    verdicts, figures = verdicts_of(analyses), write_figures(analyses, folder)
    page = folder / "index.html"
    html = (
        _environment()
        .get_template("page.html")
        .render(
            name=analyses.results.root.absolute().name,
            facts=_facts(analyses),
            verdicts=verdicts,
            figures=figures,
            tables=tables,
            downloads={table.name: _download(table) for table in tables},
            missing=_missing(analyses),
            rows_at_once=ROWS,
            columns_on_paper=_ON_PAPER,
        )
    )
    write_atomically(page, html.encode("utf-8"))
    return page


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("lmsat_plugin.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _facts(analyses: Analyses) -> dict[str, str]:
    """Return what the whole report is about, by what to call it."""
    table = analyses.table
    days = sorted({f"{date:%Y-%m-%d}" for date in table.date.dropna()})
    facts = {
        "Models": f"{table.model.nunique():,}",
        "Checkpoints": f"{len(table[['model', 'revision']].drop_duplicates()):,}",
        "Values": f"{len(table):,}",
        "Corpus": ", ".join(map(str, table.corpus.dropna().unique())),
        "Measured": " to ".join(dict.fromkeys([*days[:1], *days[-1:]])),
        "Report": f"lmsat {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    return {name: text for name, text in facts.items() if text}


def _missing(analyses: Analyses) -> list[tuple[str, str, str]]:
    """Return of each analysis that is empty its title, why, and how to get it."""
    for name in _ANALYSES:
        getattr(analyses, name)
    root = analyses.results.root
    return [
        # The page goes to others, who have no such folder.
        (title, analyses.missing[name].replace(str(root), root.absolute().name), how)
        for name, (title, how) in _ANALYSES.items()
        if name in analyses.missing
    ]


def _download(table: Table) -> dict[str, Any]:
    """Return where a table's CSV is: in the page if it is small, so that it goes with it, else in the file beside."""
    file = f"{table.name}.csv"
    if len(table.csv) > _INLINE:
        return {"href": file, "file": file}
    data = b64encode(table.csv.encode("utf-8")).decode()
    return {"href": f"data:text/csv;charset=utf-8;base64,{data}", "file": file}
