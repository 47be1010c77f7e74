"""One `lmsat sweep` against a loop of `lm_eval` commands, the way series are measured without lmsat.

16 small checkpoints × `lmsat_*` × a multiple-choice task with two examples on local data: the ratio of the times,
the largest relative difference of any result, and what a checkpoint costs beyond loading and forward passes.
"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable


def make_series(folder: Path, count: int) -> None:
    """Train the demonstration's tokenizer, and save untrained models of width 64."""
    import torch

    from lmsat_plugin import demo

    demonstration = demo.natural_language()
    demo.write_corpus(demonstration.held_out, folder / "held_out.jsonl")
    for index in range(count):
        model = demonstration.make_model(64)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)) / 50
        place = folder / "run" / f"step{100 * index}"
        model.save_pretrained(place)
        demonstration.tokenizer.save_pretrained(place)


def make_quiz(folder: Path) -> None:
    """Write the tests' multiple-choice task, with more questions."""
    path = Path(__file__).parent.parent / "tests" / "helpers" / "quiz.py"
    runpy.run_path(str(path))["write_quiz"](folder, train=20, test=50)


def at_each_checkpoint(look: Callable[[], Any]) -> list[Any]:
    """Return a list that a sweep in this process fills with what ``look`` returns after each checkpoint."""
    from lmsat_plugin.sweeps import local, progress_display

    found: list[Any] = []

    class Looking(progress_display.ProgressDisplay):
        def end(self, *args: Any, **kwargs: Any) -> None:
            found.append(look())

    local.ProgressDisplay = Looking  # type: ignore[misc]
    return found


def run(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def sweep_command(folder: Path) -> list[str]:
    config = {
        "models": [str(folder / "run")],
        "tasks": ["lmsat_*", "quiz"],
        "corpus": str(folder / "held_out.jsonl"),
        "max_tokens": 10_000,
        "include_path": str(folder / "quiz"),
        "output": str(folder / "swept"),
        "device": "cpu",
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(config))
    return ["lmsat_plugin.cli", "sweep", str(folder / "sweep.yaml")]


def lm_eval_command(folder: Path, step: str) -> list[str]:
    return [
        *("lm_eval", "run", "--model", "lmsat", "--model_args", f"pretrained={folder}/run/{step}"),
        *("--tasks", "lmsat_*,quiz", "--include_path", str(folder / "quiz"), "--device", "cpu"),
        *("--metadata", f"corpus={folder}/held_out.jsonl", "max_tokens=10000", "--batch_size", "auto"),
        *("--output_path", str(folder / "looped" / step)),
    ]


def values(folder: Path) -> dict[tuple[str, str, str], float]:
    """Return the numbers of all result files by step, task and metric."""
    found = {}
    for path in folder.rglob("results_*.json"):
        step = next(part for part in path.parts if part.startswith("step"))
        for task, metrics in json.loads(path.read_text())["results"].items():
            for metric, value in metrics.items():
                if isinstance(value, float):
                    found[step, task, metric] = value
    return found


def beyond_the_model(folder: Path) -> list[float]:
    """Sweep in this process; return each checkpoint's seconds on neither loading nor forward passes."""
    from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
    from lmsat_plugin.harness.model import SaturationLM
    from lmsat_plugin.measurement import forward
    from lmsat_plugin.sweeps.config import load_config
    from lmsat_plugin.sweeps.local import run_sweep

    inside = 0.0

    def timed(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            begun = time.perf_counter()
            try:
                return plain(*args, **kwargs)
            finally:
                inside += time.perf_counter() - begun

        setattr(owner, name, wrapper)

    timed(CheckpointEvaluator, "load")
    timed(forward.ForwardPass, "_run_batch")
    timed(SaturationLM, "_model_call")
    marks = at_each_checkpoint(lambda: (time.perf_counter(), inside))
    run_sweep(load_config(folder / "sweep.yaml", {"output": folder / "again"}))
    return [(after[0] - before[0]) - (after[1] - before[1]) for before, after in pairwise(marks)]


def main() -> int:
    count = 3 if common.parse_arguments(__doc__).quick else 16
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_series(folder, count)
        make_quiz(folder / "quiz")
        steps = sorted(path.name for path in (folder / "run").iterdir())
        swept = common.seconds(lambda: run(sweep_command(folder)))
        looped = common.seconds(lambda: [run(lm_eval_command(folder, step)) for step in steps])
        ours, theirs = values(folder / "swept"), values(folder / "looped")
        missing = float(ours.keys() != theirs.keys())
        difference = max(abs(ours[key] - theirs[key]) / max(abs(theirs[key]), 1e-9) for key in theirs)
        beyond = sorted(beyond_the_model(folder))
    times = f"{swept:.1f} s", f"{looped:.1f} s"
    rows = [
        common.Row(f"{count} checkpoints, times faster", *times, looped / swept, at_least=10.0),
        common.Row(f"{len(theirs)} values, largest difference", "", "", difference + missing, at_most=1e-6),
        common.Row(
            "a checkpoint beyond loading and forward passes, median",
            f"{beyond[len(beyond) // 2]:.3f} s",
            "-",
            beyond[len(beyond) // 2],
            at_most=0.3,
        ),
        common.Row("the same, most", f"{beyond[-1]:.3f} s", "-", beyond[-1], at_most=0.3),
    ]
    return common.report("One sweep, and a loop of lm_eval commands", rows)


if __name__ == "__main__":
    raise SystemExit(main())
