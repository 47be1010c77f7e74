"""What lmsat's start-up hook costs every start of Python: ``python -c pass`` with it and without.

Compared, in interleaved runs, as the median of the pairwise differences in ms: start-up as it is, against one in
which `site` leaves out lmsat's ``.pth`` files; against ``LMSAT_AUTOLOAD=0``; and against ``python -S``, which
leaves out all of `site`. To reach: 20 ms at most for the first. Checked besides: a started interpreter has
imported neither torch nor lm_eval, nor lmsat_plugin.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import common

# `site` run by hand, so that both sides pay for that alike.
SITE = "import site; site.main()"
SITE_WITHOUT_LMSAT = (
    "import site; add = site.addpackage; "
    "site.addpackage = lambda folder, name, known: known if 'lmsat' in name else add(folder, name, known); "
    "site.main()"
)
HEAVY = ("torch", "lm_eval", "lmsat_plugin", "transformers", "numpy")


def start(*arguments: str, **environment: str) -> str:
    """Start Python and return what it prints."""
    command = [sys.executable, *arguments]
    # The benchmarks' own settings stay out.
    environment = {**os.environ, **environment}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    runs = {
        "site": lambda: start("-S", "-c", SITE),
        "site without lmsat": lambda: start("-S", "-c", SITE_WITHOUT_LMSAT),
        "with": lambda: start("-c", "pass"),
        "LMSAT_AUTOLOAD=0": lambda: start("-c", "pass", LMSAT_AUTOLOAD="0"),
        "-S": lambda: start("-S", "-c", "pass"),
    }
    common.interleaved(runs, 1)
    times = common.interleaved(runs, 5 if quick else 20)

    def row(a: str, b: str, label: str, limit: float | None = None) -> common.Row:
        difference = statistics.median(1e3 * (x - y) for x, y in zip(times[a], times[b], strict=True))
        shown = (f"{1e3 * statistics.median(times[name]):.1f} ms" for name in (a, b))
        return common.Row(label, *shown, difference, at_most=limit)

    code = f"import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    finder = start("-c", "import sys; print('lmsat_autoload' in sys.modules)")
    if finder != "True":
        print("lmsat's start-up hook is not installed: nothing is measured")
        return 1
    imported = start("-c", code)
    rows = [
        row("site", "site without lmsat", "start-up | site without lmsat's .pth", 20.0),
        row("with", "LMSAT_AUTOLOAD=0", "start-up | LMSAT_AUTOLOAD=0", 20.0),
        row("with", "-S", "start-up | python -S, without site and all its .pth"),
        common.Row("heavy modules imported at start-up", imported or "none", "none", len(imported.split()), at_most=0),
    ]
    return common.report("Start-up; ratio = the difference in ms, or the count", rows)


if __name__ == "__main__":
    raise SystemExit(main())
