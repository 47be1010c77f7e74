"""``load_results`` on a tree of result files against the loop that people write by hand.

A tree of 10,000 files as lm-eval 0.4.13 writes them (four tasks, indented, 12 kB each) is read by `load_results`
and by the rival: `json.load` and `pandas.json_normalize` for each file, `pandas.concat` and `melt`, which leaves types,
steps, standard errors and duplicates undone. Each runs in a process of its own, so that imports count. To reach: 10 s
at most on one core, and less than the rival. Checked besides: both find the same values.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import common

TASKS = {
    "lambada_openai": {"perplexity": 38.2, "acc": 0.31},
    "arc_easy": {"acc": 0.44, "acc_norm": 0.41},
    "piqa": {"acc": 0.62, "acc_norm": 0.61},
    "winogrande": {"acc": 0.51},
}
OURS = """
from lmsat_plugin import load_results
found = load_results(sys.argv[1])
"""
RIVAL = """
import json, pathlib, pandas
parts = []
for path in sorted(pathlib.Path(sys.argv[1]).rglob("results_*.json")):
    with path.open() as file:
        data = json.load(file)
    parts.append(pandas.json_normalize(data["results"], sep="|").assign(**data["config"]["model_args"]))
wide = pandas.concat(parts)
found = wide.melt(id_vars=["pretrained", "revision", "dtype"])
found = found[found.variable.str.contains(",") & ~found.variable.str.contains("_stderr,")]
found["value"] = found["value"].astype(float)
"""
REPORT = "print(len(found), f'{found.value.sum():.6f}')"


def document(model: int, step: int) -> str:
    """Return a result file's text."""
    results, configs = {}, {}
    for number, (task, metrics) in enumerate(TASKS.items()):
        results[task] = {"name": task, "alias": task, "sample_len": 1000}
        for metric, value in metrics.items():
            results[task] |= {f"{metric},none": value + step / 1e6, f"{metric}_stderr,none": 0.01 / (number + 1)}
        configs[task] = {
            **{"task": task, "dataset_path": task, "num_fewshot": 0, "output_type": "multiple_choice"},
            "metric_list": [{"metric": metric, "aggregation": "mean"} for metric in metrics],
            **{f"setting_{i}": None for i in range(20)},
            "doc_to_text": "Question: {{question}}\nAnswer:" * 8,
        }
    args = {"pretrained": f"example/model-{model}", "revision": f"step{step}", "dtype": "float32"}
    data = {
        "results": results,
        "group_subtasks": {},
        "configs": configs,
        "versions": dict.fromkeys(TASKS, 1),
        "n-shot": dict.fromkeys(TASKS, 0),
        "higher_is_better": {task: {m: m != "perplexity" for m in metrics} for task, metrics in TASKS.items()},
        "n-samples": {task: {"original": 1000, "effective": 1000} for task in TASKS},
        "config": {"model": "hf", "model_args": args, "model_num_parameters": 70_426_624, "limit": None},
        "date": 1.7e9 + step,
        "pretty_env_info": "x" * 6000,
    }
    return json.dumps(data, indent=2)


def write_tree(folder: Path, files: int) -> None:
    for number in range(files):
        model, step = divmod(number, 100)
        place = folder / f"example__model-{model}" / f"step{step}"
        place.mkdir(parents=True)
        (place / "results_2026-01-01T00-00-00.000000.json").write_text(document(model, step), "utf-8")


def read(code: str, folder: Path) -> str:
    """Run a reader in its own process; return what it found."""
    command = [sys.executable, "-c", f"import sys\n{code}\n{REPORT}", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> int:
    files = 500 if common.parse_arguments(__doc__).quick else 10_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tree(folder, files)
        found = {who: read(code, folder) for who, code in (("lmsat", OURS), ("rival", RIVAL))}
        times = common.interleaved({"lmsat": lambda: read(OURS, folder), "rival": lambda: read(RIVAL, folder)}, 3)
        size = len(document(0, 0)) / 1e3
    ours, rival = (sorted(times[who])[1] for who in ("lmsat", "rival"))
    ratio = common.ratio(times["lmsat"], times["rival"])
    seconds = f"{ours:.2f} s", f"{rival:.2f} s"
    rows = [
        common.Row(f"{files:,} files of {size:.0f} kB, seconds", *seconds, ours, at_most=10.0),
        common.Row("the same, ratio", *seconds, ratio, at_most=1.0),
        common.Row(
            "values and their sum",
            *(found[who].strip() for who in ("lmsat", "rival")),
            float(found["lmsat"] != found["rival"]),
            at_most=0.0,
        ),
    ]
    return common.report("Reading a tree of result files", rows)


if __name__ == "__main__":
    raise SystemExit(main())
