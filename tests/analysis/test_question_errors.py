"""Standard errors by question, from samples of results: design effect, pairs, and what other questions would show."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from lmsat_plugin.analysis import find_noise
from lmsat_plugin.analysis.stats.differences import smallest_detectable
from lmsat_plugin.results.tree import Results

STAMP = "2026-01-02T03-04-05.000006"
QUESTIONS, PASSAGES = 300, 60


def answers(ability: float, seed: int) -> np.ndarray:
    """Return right and wrong answers, alike within a passage and between models."""
    difficulty = np.random.default_rng(0).standard_normal(PASSAGES).repeat(QUESTIONS // PASSAGES)
    return (ability + difficulty + 0.5 * np.random.default_rng(seed).standard_normal(QUESTIONS) > 0).astype(float)


def write(folder, model: str, step: int, answers_M: np.ndarray, *, with_samples: bool = True, shuffled: bool = False):
    """Write a result of a checkpoint, with its samples."""
    folder = folder / model / f"step{step}"
    folder.mkdir(parents=True)
    stderr = answers_M.std(ddof=1) / len(answers_M) ** 0.5
    document = {
        "results": {"race": {"acc,none": answers_M.mean(), "acc_stderr,none": stderr}},
        "n-samples": {"race": {"original": len(answers_M), "effective": len(answers_M)}},
        "config": {"model": "hf", "model_args": {"pretrained": f"me/{model}", "revision": f"step{step}"}},
        "date": 1.7e9,
    }
    (folder / f"results_{STAMP}.json").write_text(json.dumps(document))
    if with_samples:
        lines = [
            {
                "doc_id": number,
                "doc": {"question": f"{number}", "article": f"text {number // (QUESTIONS // PASSAGES)}"},
                **{"doc_hash": f"{number:064x}", "filter": "none", "metrics": ["acc"], "acc": answer},
            }
            for number, answer in enumerate(answers_M)
        ]
        lines = lines[::-1] if shuffled else lines
        (folder / f"samples_race_{STAMP}.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_errors_of_clustered_questions_and_of_pairs(tmp_path):
    first, second = answers(0.0, 1), answers(0.3, 2)
    write(tmp_path, "a-10m", 1000, first)
    write(tmp_path, "b-10m", 1000, second, shuffled=True)
    (one,) = find_noise(Results.read(tmp_path))
    passage = pd.Series(np.arange(QUESTIONS) // (QUESTIONS // PASSAGES))

    def by_pandas(values: np.ndarray) -> float:
        sums = pd.Series(values - values.mean()).groupby(passage).sum()
        return float(np.sqrt(PASSAGES / (PASSAGES - 1) * (sums**2).sum()) / QUESTIONS)

    clustered = np.mean([by_pandas(first) ** 2, by_pandas(second) ** 2])
    simple = np.mean([first.var(ddof=1) / QUESTIONS, second.var(ddof=1) / QUESTIONS])
    assert one.n_questions == QUESTIONS
    assert one.stderr == pytest.approx(clustered**0.5, rel=1e-9)
    assert one.design_effect == pytest.approx(clustered / simple, rel=1e-9)
    assert one.design_effect > 2
    assert one.paired
    assert one.mde == pytest.approx(smallest_detectable(by_pandas(first - second)), rel=1e-9)
    assert one.mde < smallest_detectable((2 * clustered) ** 0.5) / 1.5


def test_models_with_other_questions_are_no_pairs_and_without_samples_the_table_is_taken(tmp_path):
    write(tmp_path / "other", "a-10m", 1000, answers(0.0, 1))
    write(tmp_path / "other", "b-10m", 1000, answers(0.3, 2)[:250])
    (one,) = find_noise(Results.read(tmp_path / "other"))
    assert (one.paired, one.n_questions) == (False, 250)
    assert one.design_effect > 2
    assert one.mde == pytest.approx(smallest_detectable(2**0.5 * one.stderr), rel=1e-9)
    write(tmp_path / "without", "a-10m", 1000, answers(0.0, 1))
    write(tmp_path / "without", "b-10m", 1000, answers(0.3, 2), with_samples=False)
    (one,) = find_noise(Results.read(tmp_path / "without"))
    assert (one.paired, one.design_effect) == (False, None)
    assert "measure with --log_samples" in one.reasons["design_effect"]
    assert one.mde > 0


def test_samples_that_show_nothing(tmp_path):
    write(tmp_path, "a-10m", 1000, np.ones(QUESTIONS))
    (one,) = find_noise(Results.read(tmp_path))
    assert one.mde is one.stderr is None
    assert one.reasons["mde"] == "all questions have the same score"
    assert one.n_questions == QUESTIONS
