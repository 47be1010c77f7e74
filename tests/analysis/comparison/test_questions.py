"""Comparisons by the scores of single questions, which lm-eval keeps as samples; and what is said without them."""

from __future__ import annotations

import numpy as np
import pytest
from compared_results import write_questions
from scipy.stats import binomtest, norm

from lmsat_plugin import LmsatError, Results
from lmsat_plugin.analysis import compare

ACC = (np.random.default_rng(1).random(60) < 0.5).astype(float)
OTHER = np.where(np.random.default_rng(2).random(60) < 0.3, 1.0, ACC)


def of_two(root, names="ab", place=0):
    """Return the difference of one metric of two models in two folders."""
    return compare(*(Results.read(root / name) for name in names)).metrics[place]


def test_questions_are_paired_and_their_prompts_compared(tmp_path):
    rng = np.random.default_rng(3)
    a = (rng.random(200) < 0.5).astype(float)
    b = np.where(rng.random(200) < 0.1, 1.0, a)
    write_questions(tmp_path / "a", "a", {"acc": a})
    write_questions(tmp_path / "b", "b", {"acc": b})
    comparison = compare(*(Results.read(tmp_path / name) for name in "ab"))
    row = comparison.metrics[0]
    assert (row.n, row.unit, row.clusters) == (200, "question", None)
    assert row.difference == pytest.approx((b - a).mean())
    assert row.p == pytest.approx(binomtest(int((b > a).sum()), int((b != a).sum())).pvalue, abs=0.005)
    assert "b's acc of quiz is" in comparison.sentence
    write_questions(tmp_path / "c", "c", {"acc": b}, prompt="other shots")
    assert "prompts" in of_two(tmp_path, "ac").reason


def test_questions_about_one_passage_are_taken_together(tmp_path):
    rng = np.random.default_rng(4)
    docs = [{"question": f"q{index}", "passage": f"text {index // 10}"} for index in range(200)]
    a = rng.random(200)
    b = a + np.repeat(rng.normal(0, 0.1, 20), 10)
    for name, scores in (("a", a), ("b", b)):
        write_questions(tmp_path / name, name, {"acc": scores}, docs=docs)
        write_questions(tmp_path / "alone" / name, name, {"acc": scores})
    together, alone = (of_two(where) for where in (tmp_path, tmp_path / "alone"))
    assert (together.clusters, together.unit, alone.clusters) == (20, "passage", None)
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


@pytest.mark.parametrize(("count", "said"), [(9, "9 questions in common, fewer than 10"), (60, None)])
def test_fewer_than_ten_questions_have_no_difference(tmp_path, count, said):
    for name, scores in (("a", ACC), ("b", OTHER)):
        write_questions(tmp_path / name, name, {"acc": scores[:count]})
    row = of_two(tmp_path)
    assert (row.reason and said in row.reason) if said else row.reason is None
    assert (row.difference is None) == (said is not None)


def test_other_questions_have_no_difference(tmp_path):
    write_questions(tmp_path / "a", "a", {"acc": ACC})
    write_questions(tmp_path / "b", "b", {"acc": OTHER}, docs=[{"question": f"other {index}"} for index in range(60)])
    row = of_two(tmp_path)
    assert (row.difference, row.p, row.reason) == (None, None, "the two have no questions in common")


def test_of_different_limits_what_both_have_answered_is_compared(tmp_path):
    write_questions(tmp_path / "a", "a", {"acc": ACC}, config={"limit": 60})
    write_questions(tmp_path / "b", "b", {"acc": OTHER[:40]}, config={"limit": 40})
    row = of_two(tmp_path)
    assert (row.n, row.a) == (40, pytest.approx(ACC[:40].mean()))
    write_questions(tmp_path / "c", "c", {"acc": OTHER[:40]}, config={"limit": 40}, samples=False)
    row = of_two(tmp_path, "ac")
    assert row.difference is None
    assert "limit=60 in a, limit=40 in c" in row.reason


def test_without_samples_standard_errors_are_compared(tmp_path):
    write_questions(tmp_path / "a", "a", {"acc": ACC}, samples=False)
    write_questions(tmp_path / "b", "b", {"acc": OTHER})
    row = of_two(tmp_path)
    stderr = np.hypot(*(scores.std(ddof=1) / np.sqrt(60) for scores in (ACC, OTHER)))
    assert (row.paired, row.unit, row.n) == (False, None, 60)
    assert row.p == pytest.approx(2 * norm.sf((OTHER - ACC).mean() / stderr))
    assert (row.high - row.low) / 2 == pytest.approx(norm.isf(0.025) * stderr)
    assert row.mde == pytest.approx((norm.isf(0.025) + norm.isf(0.2)) * stderr)


def test_perplexities_and_sums_over_words_are_paired(tmp_path):
    """As lm-eval aggregates them: e to the minus mean, and to the minus ratio of two sums."""
    rng = np.random.default_rng(5)
    words = rng.integers(10, 90, 60)
    logs = {name: -3.0 * words + rng.normal(0, 1, 60) - shift * words for name, shift in (("a", 0.0), ("b", 0.1))}
    for name, own in logs.items():
        scores = {"perplexity": own / words, "word_perplexity": np.stack([own, words], axis=1)}
        values = {
            "perplexity": float(np.exp(-scores["perplexity"].mean())),
            "word_perplexity": float(np.exp(-own.sum() / words.sum())),
        }
        write_questions(tmp_path / name, name, scores, values=values)
    by_mean, by_word = (of_two(tmp_path, place=place) for place in (0, 1))
    assert (by_mean.better, by_word.better) == ("a", "a")
    assert by_word.difference == pytest.approx(by_word.b - by_word.a)
    drawn = rng.integers(0, 60, (4000, 60))
    for row, over in ((by_mean, np.ones(60)), (by_word, words)):
        a, b = (np.exp(-(own / words * over)[drawn].sum(1) / over[drawn].sum(1)) for own in logs.values())
        assert row.paired
        assert (row.high - row.low) / (2 * norm.isf(0.025)) == pytest.approx((b - a).std(), rel=0.2)


def test_a_group_is_paired_by_the_questions_of_its_tasks_which_have_no_rows_beside_it(tmp_path):
    for name, scores in (("a", ACC), ("b", OTHER)):
        root = tmp_path / name
        write_questions(root, name, {"acc": scores[:20]}, task="exam_law")
        groups = {"exam": ["exam_law", "exam_art"]}
        results = {
            task: {"acc,none": float(own.mean()), "acc_stderr,none": 0.1}
            for task, own in (("exam", scores), ("exam_law", scores[:20]), ("exam_art", scores[20:]))
        }
        # The last file written has the values of all, beside the samples of both.
        write_questions(root, name, {"acc": scores[20:]}, task="exam_art", results=results, group_subtasks=groups)
    comparison = compare(*(Results.read(tmp_path / name) for name in "ab"))
    (row,) = comparison.metrics
    assert (row.task, row.n, row.paired) == ("exam", 60, True)
    assert row.difference == pytest.approx((OTHER - ACC).mean())
    assert "The 2 parts of exam are not tested beside it." in comparison.pairs[0].notes


def test_samples_that_do_not_give_the_value_are_not_paired(tmp_path):
    write_questions(tmp_path / "a", "a", {"acc": ACC})
    write_questions(tmp_path / "b", "b", {"acc": OTHER}, values={"acc": 0.123})
    assert not of_two(tmp_path).paired


def test_damaged_samples_are_warned_of(tmp_path, caplog):
    write_questions(tmp_path / "a", "a", {"acc": ACC})
    path = write_questions(tmp_path / "b", "b", {"acc": OTHER})
    next(path.parent.glob("samples_*")).write_text('{"cut')
    assert not of_two(tmp_path).paired
    assert "cannot be read" in caplog.text


def test_equal_models_have_a_difference_of_nothing(tmp_path):
    for name in "ab":
        write_questions(tmp_path / name, name, {"acc": ACC})
    row = of_two(tmp_path)
    assert (row.difference, row.p, row.low, row.mde) == (0, 1, None, None)


def test_no_task_in_common(tmp_path):
    write_questions(tmp_path / "a", "a", {"acc": ACC})
    write_questions(tmp_path / "b", "b", {"acc": ACC}, task="other")
    with pytest.raises(LmsatError, match="no task in common: the one has quiz, the other other"):
        of_two(tmp_path)
