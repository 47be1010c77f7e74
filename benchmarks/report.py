"""`lmsat report` of 10 models x 150 checkpoints x 60 metrics, on one core, and its page in Chromium.

The tree, from ``tests/helpers/result_trees.py``, holds losses, geometry, LM heads, three scores of three tasks, with
the arrays of a sweep (40 documents, 2,048 positions, 512 singular values), and 44 metrics more of LM heads.
Timed, each in this process: the analyses, the rest (tables, figures in two formats, the page). To reach: 60 s in all,
5 MB for the page. In headless Chromium, where it is installed, with real mouse events: from the start of loading until
the first chart is drawn (at most 1,500 ms), from a move of the mouse over a chart and from a click on a model's name
until the next frame is painted (each at most 50 ms, the longest of 20), and the longest of a sort by each column of the
1,500 rows with the layout after it (at most 100 ms).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import common

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.page.report import write_report
from lmsat_plugin.results import Results

STEPS = (*(2**power for power in range(10)), *range(1000, 141_000, 1000))
TASKS = {"piqa": (0.5, 4.0, 0.011), "arc_easy": (0.25, 3.4, 0.01), "sciq": (0.25, 3.7, 0.012)}
ANALYSES = ("saturation", "emergence", "law", "ranks", "context")
# When the first chart is drawn, in milliseconds from the start of loading.
DRAWN = """
  window.longest = 0;
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) longest = Math.max(longest, duration);
  }).observe({ type: "longtask" });
  const look = () => {
    if (document.querySelector("#figure-explore canvas")) setTimeout(() => { window.drawn = performance.now(); });
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
"""
SORTS = """(() => {
  const sorts = [...document.querySelectorAll("#values th button")].map((button) => {
    const start = performance.now();
    button.click();
    document.body.getBoundingClientRect();
    return performance.now() - start;
  });
  return { slowest: Math.max(...sorts), rows: document.querySelector("#values .count").textContent };
})()"""
# The time from an event until the frame after it is painted, and the times between frames.
LISTEN = """
  window.times = { mousemove: [], click: [] };
  for (const kind of Object.keys(times)) {
    addEventListener(kind, () => {
      const start = performance.now();
      requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => times[kind].push(performance.now() - start);
        port2.postMessage(0);
      });
    }, true);
  }
"""
OWN = 44
"""Metrics beside those of `write_tree`."""


def in_browser(page: Path) -> list[common.Row]:
    """Return what is measured of an open page."""
    from chromium import Tab

    with Tab(page) as tab:
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=DRAWN)
        tab.open("about:blank")
        tab.open(page.as_uri() + "#figures")
        tab.wait("window.drawn")
        opened = tab.ask("Math.max(performance.getEntriesByType('navigation')[0].loadEventEnd, drawn)")
        tab.wait("charts.figures.every((figure) => !figure.isStale && !figure.isBusy)")
        # The page's own parse is no frame of a chart.
        loading = tab.ask("longest")
        tab.ask(LISTEN + "window.longest = 0;")
        x, y = tab.centre("#figure-explore .u-over")
        for step in range(20):
            tab.mouse("mouseMoved", x - 300 + 30 * step, y + step % 5)
            tab.ask("new Promise((done) => setTimeout(done, 60))")
        for number in range(20):
            tab.click(f".legend button:nth-child({1 + number // 2})")
            tab.ask("new Promise((done) => setTimeout(done, 300))")
        times, later = tab.ask("[times, longest]")
        found = tab.ask(SORTS)
        rows = [
            common.Row("opening the page, ms", f"{opened:.0f}", "", opened, at_most=1500),
            common.Row("the longest task while it opens, ms", f"{loading:.0f}", "", loading),
            common.Row("the longest task while one hovers and hides, ms", f"{later:.0f}", "", later, at_most=100),
            common.Row("charts", str(tab.ask("document.querySelectorAll('.chart canvas').length")), ""),
            common.Row("metrics", str(tab.ask("charts.values.metrics.length")), ""),
        ]
        for kind, what in (("mousemove", "a hover"), ("click", "a hidden or shown model")):
            longest = max(times[kind])
            rows.append(common.Row(f"slowest redraw of {what}, ms", f"{longest:.0f}", "", longest, at_most=50))
        rows.append(
            common.Row(
                f"slowest sort of {found['rows']}, ms", f"{found['slowest']:.0f}", "", found["slowest"], at_most=100
            )
        )
        rows.append(common.Row("lines in the console", str(len(tab.console)), "", float(len(tab.console)), at_most=0))
    return rows


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    sys.path.append(str(Path(__file__).parent.parent / "tests" / "helpers"))
    from chromium import BROWSER
    from result_trees import TOKENS_PER_STEP, Made, add_arrays, write_result, write_tree

    steps = STEPS[::10] if quick else STEPS
    models = [Made(f"org/model-{size}", 10**7 * 2**size, 60_000 if size < 3 else None) for size in range(10)]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_tree(root, models, steps, TASKS)
        for model in models:
            for step in steps:
                own = {f"metric_{index}": (index + 1) / (1 + step) + 0.1 for index in range(OWN)}
                write_result(root, model.name, step, {"lmsat_head": own}, model.n_params)
        add_arrays(root, layers=13, width=512, documents=40, window=2048)
        made: list = []

        def read() -> None:
            made.append(Analyses.of(Results.read(root, tokens_per_step=TOKENS_PER_STEP)))

        times = {"reading": common.seconds(read)}
        for analysis in ANALYSES:
            times[analysis] = common.seconds(lambda analysis=analysis: getattr(made[0], analysis))
        times["tables, figures, page"] = common.seconds(lambda: made.append(write_report(made[0], root / "report")))
        page = made[1]
        rows += [common.Row(f"{what}, seconds", f"{time:.1f}", "") for what, time in times.items()]
        total, megabytes = sum(times.values()), page.stat().st_size / 1e6
        checkpoints = len(models) * len(steps)
        rows.append(
            common.Row(f"report of {checkpoints:,} checkpoints, seconds", f"{total:.1f}", "", total, at_most=60)
        )
        rows.append(common.Row("the page, MB", f"{megabytes:.2f}", "", megabytes, at_most=5))
        if BROWSER is None:
            print("no Chromium is installed: the page is not opened")
        else:
            rows += in_browser(page)
    return common.report("The report", rows)


if __name__ == "__main__":
    raise SystemExit(main())
