"""A multiple-choice task of lm-eval with its data, on disk: for the tests and the benchmarks of sweeps."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

QUIZ = """
task: quiz
dataset_path: json
dataset_kwargs: {{data_files: {{train: {train}, test: {test}}}}}
training_split: train
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
num_fewshot: 2
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
metadata: {{version: {version}}}
"""


def write_quiz(folder: Path, *, train: int = 12, test: int = 24, version: int = 1) -> Path:
    """Write the task ``quiz``, with so many random questions, and return the folder for ``include_path``."""
    folder.mkdir(exist_ok=True)
    numbers = random.Random(0)
    for split, count in (("train", train), ("test", test)):
        rows = [
            {
                "question": f"How much is {numbers.randrange(9)} and {numbers.randrange(9)}?",
                "choices": [f" {numbers.randrange(20)} things" for _ in range(4)],
                "answer": numbers.randrange(4),
            }
            for _ in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    text = QUIZ.format(train=folder / "train.jsonl", test=folder / "test.jsonl", version=version)
    (folder / "quiz.yaml").write_text(text, "utf-8")
    return folder
