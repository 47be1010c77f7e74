"""Values at chance, against the table of Du et al. 2024 and lm-eval's own tasks."""

from __future__ import annotations

import pandas as pd
import pytest

from lmsat_plugin.analysis.chance import chance_level, measured_chances


@pytest.mark.parametrize(
    ("task", "metric", "level"),
    [
        ("lmsat-hellaswag", "acc_norm", 0.25),
        ("lmsat-race", "correct_choice_prob", 0.25),
        ("lmsat-winogrande", "acc", 0.5),
        ("lmsat-winogrande-pythia", "acc", 0.5),
        ("lmsat-mmlu", "brier_score", 0.75),
        ("mmlu_abstract_algebra", "acc", 0.25),
        ("hendrycksTest-abstract_algebra", "acc", 0.25),
        ("lmsat-clozet", "acc", 0.5),
        ("lmsat-cluewsc", "brier_score", 0.5),
        ("lmsat-c3", "acc", 0.25),
        ("lmsat-ceval", "acc", 0.25),
        ("lmsat-arc-easy", "acc", 0.25),
        ("arc_challenge", "acc", 0.25),
        ("lmsat-triviaqa", "exact_match", 0.0),
        ("lmsat-gsm8k-zh", "exact_match", 0.0),
        ("lambada_openai", "acc", 0.0),
        ("lmsat-lambada", "acc", 0.0),
        ("commonsense_qa", "acc", 0.2),
        ("wikitext", "word_perplexity", None),
        ("my_task", "acc", None),
        ("lmsat-hellaswag", "logprob_margin", None),
    ],
)
def test_chance(task, metric, level):
    assert chance_level(task, metric) == level


@pytest.mark.parametrize(
    ("task", "metric", "level"),
    [
        ("my_task", "acc_norm", 0.2),
        ("my_task", "brier_score", 0.8),
        ("my_task", "logprob_margin", None),
        ("piqa", "acc", 0.5),
        ("other", "acc", None),
    ],
)
def test_chance_that_was_measured_is_of_tasks_that_are_not_known(task, metric, level):
    rows = [("my_task", "chance", 0.2), ("my_task", "chance", 0.2), ("my_task", "acc", 0.7), ("piqa", "chance", 0.4)]
    table = pd.DataFrame([*rows, ("other", "chance", float("nan"))], columns=["task", "metric", "value"])
    assert chance_level(task, metric, measured_chances(table)) == level
