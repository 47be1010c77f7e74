"""What a sweep ends with: a verdict on each model, the page with the figures, and what to type next."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.outside_text import show

if TYPE_CHECKING:
    from lmsat_plugin.sweeps.config import SweepConfig

_SWITCH = "LMSAT_REPORT"


def wants_page(asked: bool | None) -> bool:
    """Return whether a sweep makes its page: as ``--report`` or ``--no-report`` says, else unless LMSAT_REPORT=0."""
    return os.environ.get(_SWITCH) != "0" if asked is None else asked


@contextmanager
def live_page(config: SweepConfig, watch: float) -> Iterator[None]:
    """Write the page of a sweep's results in another process, whenever results have come."""
    show(f"Report: {_page_of(config)}")
    # Ctrl-C reaches the sweep alone. The report ends when its input does: with the sweep, however that ends.
    live = subprocess.Popen(
        [*_report_command(config), "--watch", str(watch), "--with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        live.communicate()


def show_end(config: SweepConfig, *, page: bool) -> None:
    """Print the verdicts on a sweep's models, the path of the page, which is made if asked for, and two commands.

    The results are there: whatever fails here is one sentence on standard error.
    """
    try:
        for line in verdict_lines(config):
            show(line)
        if page:
            _write_page(config)
        folder = shlex.quote(str(config.output))
        show(f"Next:\n  lmsat results {folder} --wide\n  lmsat saturation {folder}{_chosen(config)}")
    except KeyboardInterrupt:
        show(f"lmsat: the report was left out. Make it with: lmsat report {config.output}", file=sys.stderr)
    except Exception as error:
        show(f"lmsat: the results are whole, but their report failed: {first_sentence(error)}", file=sys.stderr)


def verdict_lines(config: SweepConfig) -> list[str]:
    """Return a line on each model: whether it saturates, and why; or one on why that cannot be said.

    Of several corpora it is by the first.
    """
    from lmsat_plugin.analysis.analyses import Analyses
    from lmsat_plugin.analysis.saturation.several_metrics import has_several_metrics, names_of, summaries
    from lmsat_plugin.results.tree import Results

    analyses = Analyses.of(Results.read(config.output), _first_corpus(config))
    found = analyses.saturation
    if not found:
        return [f"No verdict: {analyses.missing['saturation']}"] if "saturation" in analyses.missing else []
    if has_several_metrics(found):
        return [f"{name}: {said}." for name, said in summaries(found).items()]
    return [f"{name}: {each.verdict}: {each.reason}." for name, each in zip(names_of(found), found, strict=True)]


def _write_page(config: SweepConfig) -> None:
    """Make the page in another process, which may need much memory, unless it has the last results already."""
    page = _page_of(config)
    if not _is_current(page, config.output):
        done = subprocess.run(_report_command(config), stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise LmsatError(f"try `lmsat report {config.output}` (exit code {done.returncode})")
    show(f"Report: {page}")


def _is_current(page: Path, output: Path) -> bool:
    from lmsat_plugin.results.tree_files import tree_files

    if not page.is_file():
        return False
    written, own = page.stat().st_mtime_ns, f"{page.parent}/"
    files = (file for file in tree_files(output.absolute()) if not file.path.startswith(own))
    return all(max(file.stamp[1:]) < written for file in files)


def _page_of(config: SweepConfig) -> Path:
    return Path(config.output, "report", "index.html").absolute()


def _report_command(config: SweepConfig) -> list[str]:
    chosen = [word for name in _first_corpus(config) or () for word in ("--corpus", name)]
    return [sys.executable, "-m", "lmsat_plugin.cli", "report", str(config.output), *chosen]


def _first_corpus(config: SweepConfig) -> list[str] | None:
    """Return the corpus that verdicts and the page are on; None where there is one alone."""
    return [config.corpora[0].corpus] if len(config.corpora) > 1 else None


def _chosen(config: SweepConfig) -> str:
    return "".join(f" --corpus {shlex.quote(name)}" for name in _first_corpus(config) or ())
