"""`lmsat report` of 10 models x 150 checkpoints, on one core, and its page in Chromium.

The tree, from ``tests/helpers/result_trees.py``, holds losses, geometry, LM heads and three scores of three tasks, with
the arrays of a sweep (40 documents, 2,048 positions, 512 singular values). Timed, each in this process: the analyses,
the rest (tables, figures in three formats, the page). To reach: 60 s in all, 5 MB for the page. In headless Chromium,
where it is installed: from the start of loading to the first layout (at most 2,000 ms), and the longest of a sort by
each column of the 1,500 rows with the layout after it (at most 100 ms).
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
IN_PAGE = """
  document.body.getBoundingClientRect();
  const opened = performance.now();
  const sorts = [...document.querySelectorAll("#values th button")].map((button) => {
    const start = performance.now();
    button.click();
    document.body.getBoundingClientRect();
    return performance.now() - start;
  });
  return { opened, slowest: Math.max(...sorts), rows: document.querySelector("#values .count").textContent };
"""


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    sys.path.append(str(Path(__file__).parent.parent / "tests" / "helpers"))
    from chromium import BROWSER, run_in_page
    from result_trees import TOKENS_PER_STEP, Made, add_arrays, write_tree

    steps = STEPS[::10] if quick else STEPS
    models = [Made(f"org/model-{size}", 10**7 * 2**size, 60_000 if size < 3 else None) for size in range(10)]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_tree(root, models, steps, TASKS)
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
            found, console = run_in_page(page, IN_PAGE)
            opened, slowest = found["opened"], found["slowest"]
            rows.append(common.Row("opening the page, ms", f"{opened:.0f}", "", opened, at_most=2000))
            rows.append(common.Row(f"slowest sort of {found['rows']}, ms", f"{slowest:.0f}", "", slowest, at_most=100))
            rows.append(common.Row("lines in the console", str(len(console)), "", float(len(console)), at_most=0))
    return common.report("The report", rows)


if __name__ == "__main__":
    raise SystemExit(main())
