"""Values at chance, against the table of Du et al. 2024 and lm-eval's own tasks."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import yaml

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
        # Names of lighteval, OLMES and OLMo.
        ("leaderboard|arc:challenge", "acc_norm", 0.25),
        ("harness|hendrycksTest-anatomy", "acc", 0.25),
        ("mmlu:anatomy", "acc", 0.25),
        ("arc_challenge:rc::olmes", "acc_per_char", 0.25),
        ("csqa_val_rc", "acc_norm", 0.2),
        # The Open LLM Leaderboard's.
        ("leaderboard_gpqa_diamond", "acc_norm", 0.25),
        ("leaderboard_mmlu_pro", "acc", 0.1),
        ("mmlu_pro_biology", "acc", 0.1),
        ("leaderboard_musr_murder_mysteries", "acc_norm", 0.5),
        ("leaderboard_musr_object_placements", "acc_norm", 0.2),
        ("leaderboard_musr_team_allocation", "acc_norm", 1 / 3),
        ("leaderboard_math_algebra_hard", "exact_match", 0.0),
        ("leaderboard_ifeval", "prompt_level_strict_acc", None),
        ("harness|truthfulqa:mc", "mc2", None),
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


def test_big_bench_hard_has_the_options_of_lm_eval_s_own_tasks():
    class Loader(yaml.SafeLoader):
        """A loader that passes over lm-eval's functions."""

    Loader.add_constructor("!function", lambda loader, node: node.value)
    folder = Path(find_spec("lm_eval").origin).parent / "tasks/leaderboard/bbh_mc"
    tasks = [yaml.load(path.read_text("utf-8"), Loader) for path in sorted(folder.glob("*.yaml"))]
    options = {task["task"]: len(task["doc_to_choice"]) for task in tasks if "doc_to_choice" in task}
    assert len(options) == 24
    assert {task: chance_level(task, "acc_norm") for task in options} == {
        task: pytest.approx(1 / number) for task, number in options.items()
    }


def test_gpqa_has_the_options_of_lm_eval_s_own_tasks():
    folder = Path(find_spec("lm_eval").origin).parent / "tasks/leaderboard/gpqa"
    template = (folder / "_template_yaml").read_text("utf-8")
    (line,) = (line for line in template.splitlines() if line.startswith("doc_to_choice:"))
    options = yaml.safe_load(line)["doc_to_choice"]
    for part in ("diamond", "extended", "main"):
        assert f"task: leaderboard_gpqa_{part}" in (folder / f"gpqa_{part}_zeroshot.yaml").read_text("utf-8")
        assert chance_level(f"leaderboard_gpqa_{part}", "acc_norm") == 1 / len(options)


# Scores of the parts and of the whole as published for EleutherAI/pythia-1b (open-llm-leaderboard, 2025-01-27).
BBH = {
    **{"boolean_expressions": 0.468, "causal_judgement": 0.5187165775401069, "date_understanding": 0.204},
    **{"disambiguation_qa": 0.332, "formal_fallacies": 0.468, "geometric_shapes": 0.108, "hyperbaton": 0.512},
    **{"logical_deduction_five_objects": 0.204, "logical_deduction_seven_objects": 0.128},
    **{"logical_deduction_three_objects": 0.36, "movie_recommendation": 0.24, "navigate": 0.44},
    **{"object_counting": 0.072, "penguins_in_a_table": 0.1917808219178082, "ruin_names": 0.2},
    **{"reasoning_about_colored_objects": 0.104, "salient_translation_error_detection": 0.224},
    **{"snarks": 0.5393258426966292, "sports_understanding": 0.46, "temporal_sequences": 0.26},
    **{"tracking_shuffled_objects_five_objects": 0.2, "tracking_shuffled_objects_seven_objects": 0.16},
    **{"tracking_shuffled_objects_three_objects": 0.32, "web_of_lies": 0.496},
}
MUSR = {"murder_mysteries": 0.492, "object_placements": 0.265625, "team_allocation": 0.308}


@pytest.mark.parametrize(
    ("group", "parts", "whole"),
    [("leaderboard_bbh", BBH, 0.29699704912341607), ("leaderboard_musr", MUSR, 0.3544973544973545)],
)
def test_a_group_at_chance_weighs_its_parts_as_its_published_score_does(group, parts, whole):
    """The number of questions of a part follows from its score, which is a fraction of them."""
    questions = {
        part: next(n for n in (250, 187, 146, 178, 256) if _is_share(score, n)) for part, score in parts.items()
    }
    total = sum(questions.values())
    assert sum(n * parts[part] for part, n in questions.items()) / total == pytest.approx(whole, abs=1e-15)
    guesses = (n * chance_level(f"{group}_{part}", "acc_norm") for part, n in questions.items())
    assert chance_level(group, "acc_norm") == pytest.approx(sum(guesses) / total)


def _is_share(score: float, questions: int) -> bool:
    return abs(score * questions - round(score * questions)) < 1e-9
