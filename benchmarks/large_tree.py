"""The reading commands on a sweep of 200 models x 150 checkpoints x 3 tasks: 30,000 files, of 13 kB, with their arrays.

The tree is one that a sweep would have written: digests, provenance, identities, and arrays of 20 documents, 64
positions and 64 singular values. Each command runs in a process of its own, with one thread; times are CPU time of that
process, memory is its peak. To reach: `lmsat results` 15 s and 1,000 MB, the second time 3 s; `saturation` and
`leaderboard` 60 s each, `report` 180 s. The rival of `results` is `json.load` alone, file by file. Checked besides:
the second table is the first, byte for byte, and so is that after a file has changed and changed back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import common

STEPS = (*(2**power for power in range(10)), *range(1000, 141_000, 1000))
TASKS = {"arc_easy": (0.25, 3.4, 0.01)}
DROPPED = "lmsat_anisotropy"
RIVAL = """
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).rglob("results_*.json"):
    with path.open() as file:
        json.load(file)
"""


@dataclass(frozen=True)
class Run:
    """What a process used, and what it printed."""

    seconds: float
    megabytes: float
    printed: bytes


def run(*command: str) -> Run:
    """Run a command in a process of its own, with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{' '.join(command)} failed")
        out.seek(0)
        return Run(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6, out.read())


def lmsat(*arguments: str) -> Run:
    """Run a command of lmsat."""
    return run(sys.executable, "-m", "lmsat_plugin.cli", *arguments)


def write_sweep(root: Path, models: int, steps: tuple[int, ...]) -> None:
    """Write the tree of a sweep."""
    from result_trees import Made, add_arrays, write_tree

    from lmsat_plugin.results.array_files import pack_arrays
    from lmsat_plugin.results.digests import with_digest

    made = [Made(f"org/model-{n}", int(10**7 * 1.02**n), 60_000 if n < 20 else None) for n in range(models)]
    write_tree(root, made, steps, TASKS)
    add_arrays(root, layers=13, width=64, documents=20, window=64)
    (root / ".lmsat").mkdir()
    for file in root.rglob("results_*.json"):
        document = json.loads(file.read_text("utf-8"))
        del document["results"][DROPPED]
        from safetensors.numpy import load_file

        old = file.with_suffix(".safetensors")
        data, binding = pack_arrays(load_file(old))
        old.write_bytes(data)
        tasks = list(document["results"])
        notes = document["config"]["lmsat"]
        notes |= binding
        notes["identities"] = [{"task": task, "weights": "ab" * 32, "settings": {}, "version": 1} for task in tasks]
        notes["checkpoint"]["files"] = {f"model-{n:05}-of-00004.safetensors": [10**9, 10**18] for n in range(4)}
        notes["corpus"]["prefix_policy"] = "each document begins with the prefix token" * 4
        document["configs"] = {
            task: {**{f"setting_{i}": None for i in range(20)}, "doc_to_text": "Question: {{question}}\nAnswer:" * 8}
            for task in tasks
        }
        document["pretty_env_info"] = "x" * 4000
        document["versions"] = dict.fromkeys(tasks, 1)
        file.write_bytes(with_digest(document))


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    sys.path.append(str(Path(__file__).parent.parent / "tests" / "helpers"))
    models, steps = (20, STEPS[::10]) if quick else (200, STEPS)
    with tempfile.TemporaryDirectory(dir=os.environ.get("LMSAT_BENCH_FOLDER")) as name:
        root = Path(name) / "tree"
        write_sweep(root, models, steps)
        files = len(list(root.rglob("results_*.json")))
        size = sum(path.stat().st_size for path in root.rglob("results_*.json")) / files / 1e3
        rival = run(sys.executable, "-c", RIVAL, str(root))
        first = lmsat("results", str(root), "--format", "csv")
        second = lmsat("results", str(root), "--format", "csv")
        changed = next(root.rglob("results_*.json"))
        content = changed.read_bytes()
        changed.write_bytes(content.replace(b"0.25", b"0.26", 1) + b" ")
        third = lmsat("results", str(root), "--format", "csv")
        changed.write_bytes(content)
        fourth = lmsat("results", str(root), "--format", "csv")
        commands = {
            "saturation": (lmsat("saturation", str(root)), 60),
            "leaderboard": (lmsat("leaderboard", str(root)), 60),
            "report": (lmsat("report", str(root), "--output", str(Path(name) / "report")), 180),
        }
    same = first.printed == second.printed == fourth.printed and third.printed != first.printed
    rows = [
        common.Row(
            f"results of {files:,} files of {size:.0f} kB, seconds of CPU",
            f"{first.seconds:.1f}",
            f"{rival.seconds:.1f}",
            first.seconds,
            at_most=15,
        ),
        common.Row("the same, peak memory, MB", f"{first.megabytes:.0f}", "", first.megabytes, at_most=1000),
        common.Row("the same a second time, seconds of CPU", f"{second.seconds:.1f}", "", second.seconds, at_most=3),
        common.Row("the same, peak memory, MB", f"{second.megabytes:.0f}", "", second.megabytes, at_most=1000),
        common.Row("tables differ", str(not same), "", float(not same), at_most=0),
    ]
    for command, (used, limit) in commands.items():
        rows.append(common.Row(f"{command}, seconds of CPU", f"{used.seconds:.1f}", "", used.seconds, at_most=limit))
        rows.append(common.Row(f"{command}, peak memory, MB", f"{used.megabytes:.0f}", ""))
    return common.report("A large sweep", rows)


if __name__ == "__main__":
    raise SystemExit(main())
