"""The rank needed against curves whose crossing is known, its interval against simulated corpora, and the command."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from quiz import write_quiz
from safetensors.numpy import save_file

from lmsat_plugin.analysis.analyses import Analyses
from lmsat_plugin.analysis.rank_needed.rank_curve import (
    CURVES,
    RankCurve,
    by_rank,
    capacity,
    rank_needed,
    w_error,
)
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.plan import find_jobs
from lmsat_plugin.yaml_files import SHIPPED

RANKS = np.array([4, 8, 16, 32])
TOKENS = np.array([100, 250, 70, 400, 180])
FULL = 3.0


def curve_of(losses, name="truncated", tokens=TOKENS, full=FULL, ranks=RANKS) -> RankCurve:
    """Return the curve of a corpus whose documents are all alike, with these losses."""
    return RankCurve(name, ranks, np.outer(losses, tokens), tokens, full * tokens)


def arrays_of(seed=0, documents=6, ranks=RANKS, trained=True) -> dict[str, np.ndarray]:
    """Return arrays as lmsat_rank_head leaves them; the trained heads need less rank than the truncated ones."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(50, 500, size=documents)
    full = tokens * rng.normal(FULL, 0.3, size=documents)
    arrays = {"ranks": ranks, "by_document_tokens": tokens, "full_by_document": full}
    scales = {"trained": 1, "weighted_truncated": 3, "truncated": 5}
    for name, scale in scales.items():
        gaps = scale / ranks[:, None] + rng.normal(0, 0.01, size=(len(ranks), documents))
        arrays[f"{name}_by_document"] = full + gaps * tokens
    arrays["truncated_bound"] = 50.0 / ranks
    arrays["weighted_truncated_bound"] = 100.0 / ranks - 1
    arrays["singular_values"] = np.arange(24, 0, -1.0)
    if not trained:
        del arrays["trained_by_document"]
    return {f"rank_head/{key}": value for key, value in arrays.items()}


def test_losses_and_gaps_in_a_loop():
    arrays = arrays_of()
    curve = RankCurve.from_arrays(arrays, "weighted")
    nats, full = arrays["rank_head/weighted_truncated_by_document"], arrays["rank_head/full_by_document"]
    tokens = arrays["rank_head/by_document_tokens"]
    assert curve.full_loss == pytest.approx(math.fsum(full) / sum(tokens))
    for k in range(len(RANKS)):
        assert curve.losses_K[k] == pytest.approx(math.fsum(nats[k]) / sum(tokens))
        gap = math.fsum(nats[k] - full) / sum(tokens)
        assert curve.gaps_K[k] == pytest.approx(gap)
        squares = [(a - b - gap * n) ** 2 for a, b, n in zip(nats[k], full, tokens, strict=True)]
        stderr = math.sqrt(len(tokens) / (len(tokens) - 1) * math.fsum(squares)) / sum(tokens)
        assert curve.gap_stderrs_K[k] == pytest.approx(stderr)


def test_standard_error_is_the_spread_over_corpora():
    gaps, stderrs = [], []
    for seed in range(400):
        curve = RankCurve.from_arrays(arrays_of(seed, documents=40))
        gaps.append(curve.gaps_K)
        stderrs.append(curve.gap_stderrs_K)
    np.testing.assert_allclose(np.mean(stderrs, axis=0), np.std(gaps, axis=0), rtol=0.15)
    # Far below that of the loss itself: documents are hard for both heads alike.
    assert np.mean(stderrs) < 0.1 * 0.3 / math.sqrt(40)


def test_from_arrays_chooses_and_sorts():
    arrays = arrays_of()
    assert RankCurve.from_arrays(arrays).name == "trained"
    untrained = arrays_of(trained=False)
    assert RankCurve.from_arrays(untrained).name == "weighted"
    alone = {key: value for key, value in untrained.items() if "weighted" not in key}
    assert RankCurve.from_arrays(alone).name == "truncated"
    for name in CURVES:
        expected = RankCurve.from_arrays(arrays, name)
        shuffled = dict(arrays)
        for key, value in arrays.items():
            if len(value) == len(RANKS):
                shuffled[key] = value[[2, 0, 3, 1]]
        found = RankCurve.from_arrays(shuffled, name)
        assert found.ranks_K.tolist() == RANKS.tolist()
        np.testing.assert_array_equal(found.losses_K, expected.losses_K)
        np.testing.assert_array_equal(found.bound_K, expected.bound_K)
    bounds = {name: RankCurve.from_arrays(arrays, name).bound_K.tolist() for name in CURVES}
    assert bounds["truncated"] == [12.5, 6.25, 3.125, 1.5625]
    assert bounds["weighted"] == [24, 11.5, 5.25, 2.125]
    assert bounds["trained"] == bounds["truncated"]


def test_heads_that_diverged_are_left_out():
    arrays = arrays_of()
    arrays["rank_head/trained_by_document"][1, 3] = np.nan
    arrays["rank_head/trained_by_document"][2] = np.inf
    found, whole = RankCurve.from_arrays(arrays), RankCurve.from_arrays(arrays_of())
    assert found.ranks_K.tolist() == [4, 32]
    np.testing.assert_array_equal(found.gaps_K, whole.gaps_K[[0, 3]])
    np.testing.assert_array_equal(found.bound_K, whole.bound_K[[0, 3]])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trained_by_document": None}, "no heads were trained: .*train_tokens=N"),
        ({"ranks": None}, "lack rank_head/ranks: run"),
        (
            {"ranks": np.array([4, 8])},
            r"do not belong together \(ranks \[4, 8\], losses of shape \(4, 6\), 6",
        ),
        ({"ranks": np.array([0, 4, 8, 16])}, "do not belong together"),
        ({"by_document_tokens": np.ones(5)}, "do not belong together"),
        ({"by_document_tokens": np.zeros(6)}, "do not belong together"),
        ({"ranks": np.array(4)}, "do not belong together"),
        ({"truncated_bound": np.ones(3)}, "do not belong together"),
        ({"full_by_document": np.full(6, np.nan)}, "not finite"),
        ({"trained_by_document": np.full((4, 6), np.inf)}, "not finite"),
    ],
)
def test_bad_arrays_are_one_sentence(change, sentence):
    arrays = arrays_of() | {f"rank_head/{key}": value for key, value in change.items()}
    with pytest.raises(LmsatError, match=sentence):
        RankCurve.from_arrays({key: value for key, value in arrays.items() if value is not None}, "trained")


def test_unknown_curves_are_refused():
    with pytest.raises(LmsatError, match=r"'best' is no curve .*trained, weighted, truncated"):
        RankCurve.from_arrays(arrays_of(), "best")


def test_w_error_of_a_flat_spectrum():
    expected = [math.sqrt(1 - d / 10) for d in range(1, 11)]
    np.testing.assert_allclose(w_error(np.full(10, 1e-200)), expected, rtol=1e-14)


def test_w_error_of_a_power_law():
    """s = 2⁻ⁱ down to 1e-120: the tail is a geometric sum, and exact where 1 − (the head's sum) would be 0."""
    n = 400
    s = 2.0 ** -np.arange(n)
    expected = [2.0**-d * math.sqrt((1 - 4.0 ** (d - n)) / (1 - 4.0**-n)) for d in range(1, n + 1)]
    np.testing.assert_allclose(w_error(s[::-1]), expected, rtol=1e-13)


def test_w_error_is_the_error_of_the_truncated_matrix():
    matrix = np.random.default_rng(0).standard_normal((30, 8)) * np.arange(1, 9)
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    errors = [np.linalg.norm(matrix - (u[:, :d] * s[:d]) @ vt[:d]) for d in range(1, 9)]
    np.testing.assert_allclose(w_error(s), np.array(errors) / np.linalg.norm(matrix), atol=1e-14)


@pytest.mark.parametrize("s", [[0.0, 0.0], [1.0, math.nan], []])
def test_w_error_of_nothing_is_refused(s):
    with pytest.raises(LmsatError, match="no W-error"):
        w_error(np.array(s))


def test_by_rank():
    table = by_rank(curve_of([4, 3.5, 3.1, 3.0]), np.full(16, 2.0))
    assert list(table.columns) == ["rank", "w_error", "loss", "gap", "gap_stderr", "bound"]
    np.testing.assert_allclose(table.w_error, [math.sqrt(0.75), math.sqrt(0.5), 0, 0])
    np.testing.assert_allclose(table.loss, [4, 3.5, 3.1, 3.0])
    np.testing.assert_allclose(table.gap, [1, 0.5, 0.1, 0], atol=1e-12)
    np.testing.assert_allclose(table.gap_stderr, 0, atol=1e-12)
    assert table.bound.isna().all()


def test_pythia_1b_of_the_paper():
    """Fig. 8, digitised: the loss is within 1 % of the full one between ranks 1024 and 1536."""
    ranks = np.array([32, 64, 128, 256, 512, 1024, 1536, 2048])
    curve = curve_of([3.83, 3.395, 3.007, 2.785, 2.65, 2.538, 2.491, 2.474], full=2.474, ranks=ranks)
    found = rank_needed(curve)
    share = (2.538 - 1.01 * 2.474) / (2.538 - 2.491)
    assert found.rank == pytest.approx(1024 * 1.5**share)


@pytest.mark.parametrize("within", [0.02, 0.1, 0.3])
def test_rank_needed_of_a_curve_linear_in_the_logarithm(within):
    """L(r) = 4.2 − 0.3 log2(r / 4) until the full loss of 3.3: every crossing is exact, also between ranks."""
    curve = curve_of([4.2, 3.9, 3.6, 3.3], full=3.3)
    found = rank_needed(curve, within)
    expected = 32 * 2 ** -(within * 3.3 / 0.3)
    if expected > 4:
        assert found.rank == pytest.approx(expected, rel=1e-12)
        assert found.reached
        assert not found.at_most
    else:
        assert (found.rank, found.at_most) == (4, True)
    # Documents that are all alike leave nothing to chance.
    assert found.low == pytest.approx(found.rank, rel=1e-9)
    assert found.high == pytest.approx(found.rank, rel=1e-9)


def test_rank_needed_of_a_curve_that_rises_again():
    """A higher rank that was trained worse does not make the lower one insufficient."""
    found = rank_needed(curve_of([4.0, 3.2, 3.4, 3.0]), within=0.1)
    assert found.rank == pytest.approx(4 * 2 ** (0.7 / 0.8))
    # Between 8 and 32 the least loss stays at 3.2 up to 16, then falls to 3.
    found = rank_needed(curve_of([4.0, 3.2, 3.4, 3.0]), within=0.05)
    assert found.rank == pytest.approx(16 * 2 ** (0.05 / 0.2))


def test_rank_needed_that_is_not_reached():
    found = rank_needed(curve_of([4.0, 3.5, 3.2, 3.1]), within=0.01)
    assert (found.rank, found.low, found.high) == (None, None, None)
    assert not found.reached
    assert not found.at_most


@pytest.mark.filterwarnings("error")
def test_an_interval_that_reaches_beyond_the_highest_rank():
    """One document of two needs more rank than was measured: samples of it alone do not get there."""
    tokens = np.array([100, 100])
    nats = np.array([[4.0, 4.0], [3.5, 3.5], [3.0, 3.3], [3.0, 3.05]]) * 100
    found = rank_needed(RankCurve("trained", RANKS, nats, tokens, np.full(2, 300.0)))
    assert 16 < found.rank < 32
    assert found.low == pytest.approx(8 * 2 ** (0.47 / 0.5))
    assert found.high is None


def test_one_document_has_no_interval():
    found = rank_needed(curve_of([4.0, 3.5, 3.0, 3.0], tokens=np.array([1000])))
    assert 8 < found.rank < 16
    assert (found.low, found.high) == (None, None)
    assert np.isnan(curve_of([4.0, 3.5, 3.0, 3.0], tokens=np.array([1000])).gap_stderrs_K).all()


def test_interval_does_not_depend_on_how_many_samples_fit(monkeypatch):
    curve = RankCurve.from_arrays(arrays_of(documents=20))
    whole = rank_needed(curve, 0.05)
    monkeypatch.setattr("lmsat_plugin.analysis.rank_needed.rank_curve._COUNTS_AT_ONCE", 20 * 7)
    assert rank_needed(curve, 0.05) == whole
    assert rank_needed(curve, 0.05, seed=1) != whole
    assert whole.low < whole.rank < whole.high
    wider = rank_needed(curve, 0.05, confidence=0.99)
    assert wider.low < whole.low < whole.high < wider.high


def test_interval_covers_the_truth_as_often_as_it_says():
    """Corpora of 60 documents; the losses are expectations of ratios that are known."""
    ranks, truth = np.array([8, 16, 32, 64, 128]), np.array([0.8, 0.4, 0.2, 0.1, 0.05])
    rng = np.random.default_rng(0)
    target = 0.06 * FULL
    expected = 32 * 2 ** ((0.2 - target) / 0.1)
    covered = []
    for _ in range(300):
        tokens = rng.integers(50, 600, size=60)
        full = tokens * (FULL + rng.normal(0, 0.5, size=60))
        # What a document loses is its own, at all ranks alike, and some more by rank.
        gaps = truth[:, None] * rng.lognormal(-0.18, 0.6, size=60) + rng.normal(0, 0.01, size=(5, 60))
        found = rank_needed(RankCurve("trained", ranks, full + gaps * tokens, tokens, full), 0.06, seed=1)
        covered.append(found.low <= expected <= found.high)
    assert 0.82 < np.mean(covered) < 0.95


@pytest.mark.parametrize("values", [{"within": -0.01}, {"within": math.nan}, {"confidence": 1.0}])
def test_questions_without_an_answer_are_refused(values):
    with pytest.raises(LmsatError, match=r"within=.* confidence="):
        rank_needed(curve_of([4.0, 3.5, 3.0, 3.0]), **values)


def test_capacity():
    errors = np.sqrt(1 - np.arange(1, 101) / 100)
    found = capacity(errors, 64)
    assert (found.dimension, found.ratio) == (100, 100 / 64)
    assert found.w_error_at_hidden_size == pytest.approx(0.6)
    assert capacity(errors, 50, negligible=0.5).dimension == 75
    # Known in part: nothing is said of what lies beyond.
    found = capacity(errors[:80], 90)
    assert (found.dimension, found.w_error_at_hidden_size, found.ratio) == (None, None, None)
    assert capacity(errors, 200).w_error_at_hidden_size == 0
    assert capacity(errors, 200).ratio == 0.5


def write_result(folder, step, arrays, corpus="sample", note=None, more=None, settings=None) -> None:
    """Write a sweep's result file and its arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    provenance = {
        "probes": {
            "rank_head": {"version": 1, "settings": settings or {}},
            "gradient_bottleneck": {"version": 1},
        },
        "corpus": {"corpus": corpus, "max_tokens": 50_000, "seed": 0, "documents": 6},
        "model": {"n_params": 1000, "hidden_size": 24, "vocab_size": 512},
        "checkpoint": {"model": "neox-w24", "revision": f"step{step}", "step": step},
        "arrays": f"arrays_{step}.safetensors",
        **(note or {}),
    }
    results = {"lmsat_rank_head": {"alias": "lmsat_rank_head", "full_loss,none": FULL}, **(more or {})}
    content = {
        "results": results,
        "configs": {task: {"task": task} for task in results},
        "config": {"model": "lmsat", "model_args": {"pretrained": "neox-w24"}, "lmsat": provenance},
        "date": 1.7e9 + step,
    }
    (folder / f"results_{step}.json").write_text(json.dumps(content))
    if arrays:
        save_file(arrays, folder / f"arrays_{step}.safetensors")


def run_json(capsys, *arguments) -> list[dict]:
    assert main(["bottleneck", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error_of(capsys, *arguments) -> str:
    assert main(["bottleneck", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lmsat: error: ")
    assert error.count("\n") == 1
    return error


def test_json_of_a_tree(tmp_path, capsys):
    share = {"lmsat_gradient_bottleneck": {"suppressed_norm_share,none": 0.75}}
    errors = np.sqrt(1 - np.arange(1, 33) / 32)
    write_result(tmp_path / "neox-w24/step10", 10, arrays_of(1, trained=False))
    write_result(tmp_path / "neox-w24/step20", 20, {**arrays_of(2), "ngram/w_error": errors}, more=share)
    before, after = run_json(capsys, tmp_path, "--within", 5)
    assert list(after) == [
        *("model", "revision", "step", "corpus", "curve", "full_loss", "within"),
        *("rank_needed", "rank_low", "rank_high", "hidden_size", "ranks", "corpus_dimension"),
        *("corpus_w_error_at_hidden_size", "suppressed_norm_share", "downstream"),
    ]
    assert [before[key] for key in ("model", "revision", "step", "corpus")] == [
        "neox-w24",
        "step10",
        10,
        "sample",
    ]
    assert (before["curve"], after["curve"]) == ("weighted", "trained")
    for one, arrays in ((before, arrays_of(1, trained=False)), (after, arrays_of(2))):
        curve = RankCurve.from_arrays(arrays)
        needed = rank_needed(curve, 0.05)
        assert one["full_loss"] == pytest.approx(curve.full_loss)
        assert one["within"] == 0.05
        assert [one["rank_needed"], one["rank_low"], one["rank_high"]] == [
            needed.rank,
            needed.low,
            needed.high,
        ]
        expected = by_rank(curve, arrays["rank_head/singular_values"])
        assert one["ranks"] == expected.assign(w_error=expected.w_error).to_dict("records")
        assert one["hidden_size"] == 24
    assert after["ranks"][3]["w_error"] == 0
    assert (before["corpus_dimension"], before["corpus_w_error_at_hidden_size"]) == (None, None)
    assert (after["corpus_dimension"], after["corpus_w_error_at_hidden_size"]) == (32, 0.5)
    assert (before["suppressed_norm_share"], after["suppressed_norm_share"]) == (None, 0.75)


def test_json_has_null_for_what_is_not_known(tmp_path, capsys):
    share = {"lmsat_gradient_bottleneck": {"suppressed_norm_share,none": math.nan}}
    arrays = {**arrays_of(documents=1), "rank_head/weighted_truncated_bound": np.full(4, np.inf)}
    write_result(tmp_path, 1, arrays, note={"model": {}}, more=share)
    [one] = run_json(capsys, tmp_path, "--curve", "weighted")
    assert one["suppressed_norm_share"] is None
    assert [rank["bound"] for rank in one["ranks"]] == [None] * 4
    [one] = run_json(capsys, tmp_path / "results_1.json", "--curve", "truncated", "--within", 0.1)
    assert [one[key] for key in ("rank_needed", "rank_low", "rank_high", "hidden_size")] == [None] * 4
    assert [rank["gap_stderr"] for rank in one["ranks"]] == [None] * 4
    assert [rank["bound"] for rank in one["ranks"]] == [12.5, 6.25, 3.125, 1.5625]
    assert [type(rank["rank"]) for rank in one["ranks"]] == [int] * 4


def test_arrays_elsewhere_and_another_corpus_in_the_file(tmp_path, capsys):
    """Plain lm_eval names the arrays by their whole path, and notes each corpus by itself."""
    save_file(arrays_of(), tmp_path / "elsewhere.safetensors")
    write_result(tmp_path / "results", 1, {})
    file = tmp_path / "results" / "results_1.json"
    content = json.loads(file.read_text())
    note = content["config"]["lmsat"] | {"arrays": str(tmp_path / "elsewhere.safetensors")}
    content["config"]["lmsat"] = [{**note, "probes": {"loss": {}}, "arrays": "nowhere.safetensors"}, note]
    file.write_text(json.dumps(content))
    [one] = run_json(capsys, tmp_path / "results")
    assert one["curve"] == "trained"
    assert one["full_loss"] == pytest.approx(RankCurve.from_arrays(arrays_of()).full_loss)


def test_share_of_the_same_corpus_with_other_settings(tmp_path, capsys):
    """Settings of the heads, which tell their results apart, are none of the gradient's."""
    share = {"lmsat_gradient_bottleneck": {"suppressed_norm_share,none": 0.75}}
    write_result(tmp_path / "a", 1, arrays_of(), settings={"train_tokens": 1000}, more=share)
    write_result(tmp_path / "b", 1, arrays_of(), settings={"train_tokens": 2000})
    write_result(tmp_path / "c", 1, arrays_of(), corpus="pile")
    found = run_json(capsys, tmp_path)
    assert {one["corpus"]: one["suppressed_norm_share"] for one in found} == {
        "sample (train_tokens=1000)": 0.75,
        "sample (train_tokens=2000)": 0.75,
        "pile": None,
    }


def test_ngram_file(tmp_path, capsys):
    write_result(tmp_path / "tree", 1, {**arrays_of(), "ngram/w_error": np.zeros(3)})
    ngram = tmp_path / "ngram.json"
    ngram.write_text(json.dumps({"corpus": "pile", "order": 5, "vocab_size": 512, "w_error": [0.5] * 30}))
    [one] = run_json(capsys, tmp_path / "tree", "--ngram", ngram)
    assert (one["corpus_dimension"], one["corpus_w_error_at_hidden_size"]) == (None, 0.5)
    for content in ("{", "[]", '{"w_error": "x"}', '{"w_error": [[1]]}', '{"w_error": [NaN]}'):
        ngram.write_text(content)
        assert "lmsat ngram --json" in error_of(capsys, tmp_path / "tree", "--ngram", ngram)
    assert "nowhere.json" in error_of(capsys, tmp_path / "tree", "--ngram", tmp_path / "nowhere.json")


def test_tables(tmp_path, capsys):
    write_result(tmp_path / "a", 1000, {**arrays_of(), "ngram/w_error": np.sqrt(1 - np.arange(1, 33) / 32)})
    write_result(tmp_path / "b", 2000, arrays_of(ranks=np.array([400, 800])), corpus="[bold]pile")
    assert main(["bottleneck", str(tmp_path), "--within", "5"]) == 0
    shown = capsys.readouterr().out
    assert "neox-w24, step1000, on sample: trained heads" in shown
    assert "neox-w24, step2000, on [bold]pile" in shown
    assert "within 5 % of the full one" in shown
    needed = rank_needed(RankCurve.from_arrays(arrays_of()), 0.05)
    assert f"{needed.rank:.1f}" in shown
    assert f"{needed.low:.1f} to {needed.high:.1f}" in shown
    assert "≤ 400 to ≤ 400" in shown
    assert "suppressed" not in shown
    assert main(["bottleneck", str(tmp_path), "--within", "0.1", "--curve", "truncated"]) == 0
    assert "> 32" in capsys.readouterr().out


def test_missing_and_broken_arrays(tmp_path, capsys, caplog):
    write_result(tmp_path, 1, {})
    assert "arrays_1.safetensors cannot be read" in (error := error_of(capsys, tmp_path))
    assert "run lmsat_rank_head again" in error
    (tmp_path / "arrays_1.safetensors").write_bytes(b"nothing of the kind")
    assert "cannot be read" in error_of(capsys, tmp_path)
    write_result(tmp_path, 1, arrays_of(), note={"arrays": None})
    assert "arrays=FOLDER in --model_args" in error_of(capsys, tmp_path)
    save_file({"loss/by_document": np.zeros(2)}, tmp_path / "arrays_1.safetensors")
    write_result(tmp_path, 1, {})
    assert "lack rank_head/ranks" in error_of(capsys, tmp_path)
    arrays = arrays_of()
    del arrays["rank_head/singular_values"]
    write_result(tmp_path, 1, arrays)
    assert "lack rank_head/singular_values" in error_of(capsys, tmp_path)
    # One that can be read is shown, and the other named.
    write_result(tmp_path, 2, arrays_of())
    with caplog.at_level(logging.WARNING):
        assert [one["step"] for one in run_json(capsys, tmp_path)] == [2]
    assert "results_1.json" in caplog.text


def write_scores(file, args, results, date=1.7e9, name=None, width=None, **more) -> None:
    """Write results of lm-eval's tasks: plain lm_eval's, or a sweep's if it has a name for the model."""
    note = {"checkpoint": {"model": name, "revision": "step10", "step": 10}} if name else {}
    if width is not None:
        note["model"] = {"hidden_size": width}
    content = {
        "results": {task: {"alias": task, **values} for task, values in results.items()},
        "configs": {task: {"task": task, "num_fewshot": 0} for task in results},
        "config": {
            "model": "lmsat",
            "model_args": args,
            "model_revision": "step10" if name else "main",
            **({"lmsat": note} if note else {}),
        },
        "date": date,
        **more,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def scores_of(one) -> dict[tuple, float]:
    return {(s["task"], s["metric"], s["curve"], s["rank"]): s["value"] for s in one["downstream"]}


def test_accuracies_of_a_sweep_over_ranks(tmp_path, capsys):
    """All entries are one checkpoint, which the sweep knows under another name for each head."""
    folder = tmp_path / "runs" / "neox"
    for rank in (4, 16):
        args = {"pretrained": str(folder / "step10"), "head_rank": rank}
        found = {"quiz": {"acc,none": rank / 100, "acc_stderr,none": 0.01, "acc_norm,none": 1}}
        write_scores(tmp_path / f"out/r{rank}/results_1.json", args, found, name=f"neox rank {rank}")
    own = {"quiz": {"acc,none": 0.5, "acc_stderr,none": "N/A"}, "other": {"acc,none": 0.1}}
    write_scores(
        tmp_path / "out/own/results_1.json",
        {"pretrained": str(folder / "step10")},
        own,
        name="my neox",
        width=24,
    )
    [one] = run_json(capsys, tmp_path / "out")
    assert [one[key] for key in ("model", "revision", "step", "hidden_size", "curve", "ranks")] == [
        *("my neox", "step10", 10, 24),
        *(None, []),
    ]
    # A task that was run with the model's own head alone says nothing of ranks.
    assert one["downstream"] == [
        {"task": "quiz", "metric": "acc", "curve": "truncated", "rank": 4, "value": 0.04, "stderr": 0.01},
        {"task": "quiz", "metric": "acc", "curve": "truncated", "rank": 16, "value": 0.16, "stderr": 0.01},
        {"task": "quiz", "metric": "acc", "curve": None, "rank": 24, "value": 0.5, "stderr": None},
    ]
    [one] = run_json(capsys, tmp_path / "out" / "r4")
    assert (one["model"], one["hidden_size"]) == ("neox", None)


def test_accuracies_of_plain_lm_eval(tmp_path, capsys, caplog):
    """Arguments as text, heads from files, and a width that nothing states."""
    arguments = {
        "head_rank=8": 0.1,
        "head=heads/a__b__main__rank_32.safetensors": 0.2,
        "head=heads/a__b__main__truncated_rank_32.safetensors": 0.3,
        "revision=main": 0.4,
        "head=mine.safetensors": 0.5,
        "head_rank=8,head=x__rank_16.safetensors": 0.6,
        "head_rank=many": 0.7,
    }
    for number, (args, value) in enumerate(arguments.items()):
        file = tmp_path / f"results_{number}.json"
        write_scores(file, f"pretrained=a/b,{args},dtype=float32", {"piqa": {"acc,none": value}})
    with caplog.at_level(logging.WARNING):
        [one] = run_json(capsys, tmp_path)
    assert (one["model"], one["revision"], one["hidden_size"]) == ("a/b", "main", None)
    assert scores_of(one) == {
        ("piqa", "acc", "truncated", 8): 0.1,
        ("piqa", "acc", "trained", 32): 0.2,
        ("piqa", "acc", "weighted", 32): 0.3,
        ("piqa", "acc", None, None): 0.4,
    }
    assert caplog.text.count("Left out") == 3
    assert "results_4.json: head=mine.safetensors does not say a rank" in caplog.text
    assert "head=x__rank_16.safetensors and head_rank=8 does not" in caplog.text


def test_which_accuracy_of_a_task(tmp_path, capsys):
    found = {
        "norm": {"acc_norm,none": 0.1, "exact_match,none": 0.9},
        "math": {"exact_match,strict": 0.2, "exact_match,loose": 0.3, "exact_match_stderr,loose": 0.01},
        "lmsat_loss": {"loss,none": 3.0, "acc,none": 0.9},
        "words": {"perplexity,none": 9.0},
        "all": {"acc,none": 0.4},
        "part": {"acc,none": 0.5},
    }
    write_scores(
        tmp_path / "results_1.json",
        {"pretrained": "a/b", "head_rank": 4},
        found,
        group_subtasks={"all": ["part"], "norm": [], "tag": ["math"], "odd": 3},
    )
    [one] = run_json(capsys, tmp_path / "results_1.json")
    assert {key[:2]: value for key, value in scores_of(one).items()} == {
        ("norm", "acc_norm"): 0.1,
        ("math (filter=strict)", "exact_match"): 0.2,
        ("math (filter=loose)", "exact_match"): 0.3,
        ("all", "acc"): 0.4,
    }


def test_settings_tell_accuracies_apart_and_the_newest_stands(tmp_path, capsys):
    args = {"pretrained": "a/b", "head_rank": 4}
    for date, value in ((2, 0.2), (1, 0.1)):
        write_scores(
            tmp_path / f"{date}/results_1.json", {**args, "arrays": "x"}, {"piqa": {"acc,none": value}}, date
        )
    [one] = run_json(capsys, tmp_path)
    assert scores_of(one) == {("piqa", "acc", "truncated", 4): 0.2}
    few = {"piqa": {"task": "piqa", "num_fewshot": 5}}
    write_scores(tmp_path / "3/results_1.json", args, {"piqa": {"acc,none": 0.3}}, 3, configs=few)
    write_scores(tmp_path / "4/results_1.json", {**args, "head_rank": 8}, {"piqa": {"acc,none": 0.4}}, 4)
    write_scores(tmp_path / "5/results_1.json", {"pretrained": "a/b"}, {"piqa": {"acc,none": 0.5}}, 5)
    other = {**args, "pretrained": "c/d"}
    write_scores(tmp_path / "6/results_1.json", other, {"piqa": {"acc,none": 0.6}}, 6)
    one, another = run_json(capsys, tmp_path)
    assert scores_of(one) == {
        ("piqa (num_fewshot=0)", "acc", "truncated", 4): 0.2,
        ("piqa (num_fewshot=0)", "acc", "truncated", 8): 0.4,
        ("piqa (num_fewshot=0)", "acc", None, None): 0.5,
        ("piqa (num_fewshot=5)", "acc", "truncated", 4): 0.3,
    }
    assert scores_of(another) == {("piqa", "acc", "truncated", 4): 0.6}


def figure_data(monkeypatch, *arguments):
    """Return what the command would have drawn."""
    drawn = []
    monkeypatch.setattr(
        "lmsat_plugin.figures.rank.rank_figure",
        lambda losses, accuracies, among: drawn.append((losses, accuracies)) or Figure(),
    )
    assert main(["bottleneck", *map(str, arguments)]) == 0
    [data] = drawn
    return data


def test_figure_of_losses_and_accuracies(tmp_path, capsys, monkeypatch):
    hits = {f"accuracy_rank_{rank},none": rank / 100 for rank in RANKS.tolist()}
    hits |= {"accuracy_rank_4_stderr,none": 0.01}
    write_result(tmp_path / "tree/a", 10, arrays_of(1))
    file = tmp_path / "tree/a/results_10.json"
    content = json.loads(file.read_text())
    content["results"]["lmsat_rank_head"] |= hits
    content["config"]["model_args"] = {"pretrained": "runs/neox-w24/step10"}
    file.write_text(json.dumps(content))
    args = {"pretrained": "/elsewhere/neox-w24/step10", "head_rank": 8}
    write_scores(tmp_path / "tree/b/results_1.json", args, {"piqa": {"acc,none": 0.6}}, name="rank 8")
    data = tmp_path / "tree", "--figure", tmp_path / "rank.png"
    losses, accuracies = figure_data(monkeypatch, *data)
    assert losses.model.unique().tolist() == accuracies.model.unique().tolist() == ["neox-w24"]
    for name in CURVES:
        curve = RankCurve.from_arrays(arrays_of(1), name)
        rows = losses[losses.curve == name]
        assert rows["rank"].tolist() == RANKS.tolist()
        np.testing.assert_allclose(rows.loss, curve.losses_K)
        np.testing.assert_allclose(rows.gap_stderr, curve.gap_stderrs_K)
        np.testing.assert_allclose(rows.full_loss, curve.full_loss)
        np.testing.assert_allclose(rows.w_error, w_error(np.arange(24, 0, -1.0))[[3, 7, 15, 23]])
    rows = accuracies[accuracies.task == "next token"]
    assert (rows.curve.unique().tolist(), rows["rank"].tolist()) == (["trained"], RANKS.tolist())
    assert rows.value.tolist() == [0.04, 0.08, 0.16, 0.32]
    assert rows.stderr.isna().tolist() == [False, True, True, True]
    rows = accuracies[accuracies.task == "piqa"]
    assert rows[["curve", "rank", "value"]].values.tolist() == [["truncated", 8, 0.6]]
    assert losses.curve.tolist()[0] == "trained"
    losses, _ = figure_data(monkeypatch, *data, "--curve", "weighted")
    assert losses.curve.drop_duplicates().tolist() == ["weighted", "trained", "truncated"]


def test_figure_names_what_differs(tmp_path, capsys, monkeypatch):
    for step, corpus in ((10, "sample"), (20, "sample"), (20, "pile")):
        write_result(tmp_path / f"tree/{step}{corpus}", step, arrays_of(trained=False), corpus=corpus)
    losses, accuracies = figure_data(monkeypatch, tmp_path / "tree", "--figure", tmp_path / "rank.pdf")
    assert set(losses.model) == {
        f"neox-w24, {more}" for more in ("step10, sample", "step20, sample", "step20, pile")
    }
    assert set(losses.curve) == {"weighted", "truncated"}
    assert accuracies.empty


def test_report_draws_the_last_checkpoint_on_the_corpus_that_was_chosen(tmp_path):
    for step, corpus in ((10, "sample"), (20, "sample"), (30, "pile")):
        write_result(tmp_path / f"{step}{corpus}", step, arrays_of(), corpus=corpus)
    [found] = Analyses.of(tmp_path, corpus="sample").ranks
    assert (found.facts["revision"], found.facts["corpus"]) == ("step20", "sample")


def test_figure_file(tmp_path, capsys):
    write_scores(tmp_path / "tree/results_1.json", "pretrained=a/b,head_rank=8", {"piqa": {"acc,none": 0.6}})
    assert main(["bottleneck", str(tmp_path / "tree"), "--figure", str(tmp_path / "new" / "rank.svg")]) == 0
    shown = capsys.readouterr().out
    assert "a/b, main: accuracy by rank" in shown
    assert "Rank needed" not in shown
    svg = (tmp_path / "new" / "rank.svg").read_text()
    assert "Accuracy" in svg
    assert "Loss" not in svg
    write_result(tmp_path / "tree", 2, arrays_of())
    assert main(["bottleneck", str(tmp_path / "tree"), "--figure", str(tmp_path / "rank.png")]) == 0
    assert "accuracy by rank" in (shown := capsys.readouterr().out)
    assert "Rank needed" in shown
    assert (tmp_path / "rank.png").read_bytes().startswith(b"\x89PNG")
    assert "rank.jpeg is no name of a figure" in error_of(
        capsys, tmp_path / "tree", "--figure", tmp_path / "rank.jpeg"
    )
    (tmp_path / "file").write_text("")
    assert "cannot write" in error_of(capsys, tmp_path / "tree", "--figure", tmp_path / "file" / "rank.png")


def test_arrays_that_are_lost_leave_the_accuracies(tmp_path, capsys, caplog):
    write_result(tmp_path, 1, {})
    write_scores(tmp_path / "results_2.json", "pretrained=a/b,head_rank=8", {"piqa": {"acc,none": 0.6}})
    with caplog.at_level(logging.WARNING):
        [one] = run_json(capsys, tmp_path)
    assert (one["model"], one["corpus"]) == ("a/b", None)
    assert "results_1.json: the arrays" in caplog.text


def test_a_sweep_with_heads_of_several_ranks(tmp_path, capsys, checkpoint):
    """What a sweep itself writes, with the model's arguments that it was given."""
    folder = str(checkpoint("gpt_neox"))
    heads = [
        {"pretrained": folder, "name": f"tiny rank {rank}", "model_args": {"head_rank": rank}}
        for rank in (2, 8)
    ]
    config = {
        "models": [*heads, folder],
        "tasks": ["quiz", "lmsat_head"],
        "include_path": str(write_quiz(tmp_path / "quiz")),
        "output": str(tmp_path / "out"),
        "device": "cpu",
    }
    (tmp_path / "sweep.yaml").write_text(json.dumps(config))
    assert main(["sweep", str(tmp_path / "sweep.yaml")]) == 0
    capsys.readouterr()
    [one] = run_json(capsys, tmp_path / "out")
    values = {
        json.loads(path.read_text())["config"]["model_args"].get("head_rank", 48): json.loads(
            path.read_text()
        )
        for path in (tmp_path / "out").rglob("results_*.json")
    }
    assert {rank: value for (*_, rank), value in scores_of(one).items()} == {
        rank: document["results"]["quiz"]["acc,none"] for rank, document in values.items()
    }
    assert [(s["rank"], s["curve"]) for s in one["downstream"]] == [
        (2, "truncated"),
        (8, "truncated"),
        (48, None),
    ]
    assert one["model"] == "gpt_neox"


def test_the_sweep_over_ranks_that_is_shipped(monkeypatch):
    config = load_config(SHIPPED / "rank-downstream.yaml")
    refs = {"main": "a" * 40, "step0": "b" * 40, "step143000": "a" * 40}
    monkeypatch.setattr("lmsat_plugin.sweeps.checkpoints.list_refs", lambda repository: refs)
    jobs = find_jobs(config)
    assert {(job.checkpoint.pretrained, job.checkpoint.revision) for job in jobs} == {
        ("EleutherAI/pythia-410m", "step143000")
    }
    assert [job.model_args for job in jobs] == [{"head_rank": r} for r in (32, 64, 128, 256, 512, 768)] + [{}]
    assert {entry.task for entry in config.tasks} == {
        "lambada_openai",
        "arc_easy",
        "piqa",
        "sciq",
        "lmsat_loss",
    }


def test_bad_input(tmp_path, capsys):
    write_result(tmp_path / "tree", 1, arrays_of(trained=False))
    assert "train_tokens=N" in error_of(capsys, tmp_path / "tree", "--curve", "trained")
    assert "within=-0.01" in error_of(capsys, tmp_path / "tree", "--within", "-1")
    assert "neither a folder nor a file" in error_of(capsys, tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    content = {"results": {"piqa": {"acc,none": 0.5}}, "config": {"model_args": "pretrained=x"}}
    (tmp_path / "other" / "results_1.json").write_text(json.dumps(content))
    assert "--tasks lmsat_rank_head" in error_of(capsys, tmp_path / "other")
    with pytest.raises(SystemExit):
        main(["bottleneck", str(tmp_path), "--curve", "best"])


def test_analysis_and_command_import_neither_torch_nor_lm_eval_nor_matplotlib(tmp_path):
    write_result(tmp_path, 1, arrays_of())
    code = (
        "import sys; from lmsat_plugin.cli.main import main; main(['bottleneck', sys.argv[1], '--json']); "
        "sys.exit(bool({'torch', 'lm_eval', 'transformers', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
