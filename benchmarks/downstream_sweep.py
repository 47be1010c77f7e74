"""A sweep of ten checkpoints on three few-shot tasks, against the same sweep with lm-eval's ``hf`` answering.

Random weights of Pythia-14m's shape; local tasks: one-token options behind five fixed shots (as MMLU), options of
several words behind five drawn shots (as ARC), and endings of 25 words behind three drawn shots (as HellaSwag). Both
sweeps run in this process, in turns, each into a folder of its own; ``hf`` answers one request at a time, which is
fastest on a CPU.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import tempfile
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import common
import torch
import transformers
import yaml

from lmsat_plugin.harness.loglikelihoods import ScoringPlan
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.local import run_sweep

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{train: {folder}/{name}-train.jsonl, test: {folder}/{name}-test.jsonl}}}}
training_split: train
test_split: test
fewshot_split: train
fewshot_config: {{sampler: {sampler}}}
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
num_fewshot: {shots}
metric_list: [{{metric: acc}}]
"""
# Words of a question and of an option, the sampler of the shots, and their number.
TASKS = {"letters": (70, 0, "first_n", 5), "questions": (25, 4, "default", 5), "endings": (60, 25, "default", 3)}


def make_tasks(folder: Path, documents: int) -> None:
    random_ = random.Random(0)
    words = ["time", "year", "people", "way", "day", "man", "thing", "life", "child", "world", "school", "state"]

    def draw(number: int) -> str:
        return " ".join(random_.choices(words, k=number))

    for name, (question, option, sampler, shots) in TASKS.items():
        for split, number in (("train", 20), ("test", documents)):
            rows = [
                {
                    "question": draw(question),
                    "choices": [draw(option) for _ in range(4)] if option else list("ABCD"),
                    "answer": random_.randrange(4),
                }
                for _ in range(number)
            ]
            (folder / f"{name}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        text = TASK.format(name=name, folder=folder, sampler=sampler, shots=shots)
        (folder / f"{name}.yaml").write_text(text)


def make_series(folder: Path, checkpoints: int) -> None:
    config = transformers.GPTNeoXConfig(
        vocab_size=50304,
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=common.WINDOW,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(common.smollm2())
    for step in range(checkpoints):
        torch.manual_seed(step)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.save_pretrained(folder / f"step{step}")
        tokenizer.save_pretrained(folder / f"step{step}")


def sweep(folder: Path, output: Path, *, by_plan: bool) -> None:
    values = {
        "models": [str(folder / "run")],
        "tasks": list(TASKS),
        "include_path": str(folder),
        "output": str(output),
        "device": "cpu",
        "batch_size": "auto" if by_plan else 1,
    }
    config = output.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(values))
    hf = contextlib.nullcontext() if by_plan else mock.patch.object(SaturationLM, "_scores_by_plan", False)
    with hf, contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        run_sweep(load_config(config, {}))


def scores(output: Path) -> dict[tuple[str, str, str], float]:
    found = {}
    for path in output.rglob("results_*.json"):
        step = next(part for part in path.parts if part.startswith("step"))
        for task, metrics in json.loads(path.read_text())["results"].items():
            found |= {(step, task, key): value for key, value in metrics.items() if isinstance(value, float)}
    return found


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    checkpoints, rounds = (2, 1) if quick else (10, 2)
    made: list[Any] = []
    plan = ScoringPlan.of
    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.object(ScoringPlan, "of", lambda *arguments: made.append(1) or plan(*arguments)),
    ):
        folder, number = Path(name), count()
        make_tasks(folder, 8)
        make_series(folder / "run", checkpoints)
        runs = {
            kind: lambda kind=kind: sweep(folder, folder / f"{kind}{next(number)}", by_plan=kind == "lmsat")
            for kind in ("lmsat", "hf")
        }
        times = common.interleaved(runs, rounds)
        ours, theirs = scores(folder / "lmsat0"), scores(folder / "hf1")
    apart = max(abs(ours[key] - value) / max(abs(value), 1e-9) for key, value in theirs.items())
    rows = [
        common.Row(
            f"{checkpoints} checkpoints: times faster",
            f"{min(times['lmsat']):.1f} s",
            f"{min(times['hf']):.1f} s",
            common.ratio(times["hf"], times["lmsat"]),
            at_least=3.0,
        ),
        common.Row("plans made in a sweep", f"{len(made) // rounds}", "-", len(made) / rounds, at_most=1),
        common.Row(
            f"{len(theirs)} values, largest difference", "", "", apart + (ours.keys() != theirs.keys()), at_most=1e-4
        ),
    ]
    return common.report("A sweep on three few-shot tasks", rows)


if __name__ == "__main__":
    raise SystemExit(main())
