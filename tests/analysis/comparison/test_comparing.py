"""Comparisons of models: what is paired with what, at which checkpoints, and what is not compared and why."""

from __future__ import annotations

import json

import numpy as np
import pytest
from compared_results import write_losses
from scipy.stats import ttest_ind

from lmsat_plugin import LmsatError, Results
from lmsat_plugin.analysis import compare

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(100, 300, 40)
HARDNESS = RNG.normal(4, 0.8, 40)
"""Nats per token of each document, which all models share."""


def nats(loss: float, seed: int, tokens=TOKENS, noise: float = 0.02) -> np.ndarray:
    """Return the nats of each document of a model that is better or worse than another on all alike."""
    rng = np.random.default_rng(seed)
    return tokens * (HARDNESS[: len(tokens)] + loss + rng.normal(0, noise, len(tokens)))


def only(comparison, metric="loss"):
    return next(row for row in comparison.metrics if row.metric == metric)


@pytest.fixture
def tree(tmp_path):
    """Two models of three checkpoints; the second one needs half of the tokens."""
    for step, loss in ((100, 1.0), (200, 0.5), (400, 0.0)):
        write_losses(tmp_path, "org/a", step, nats(loss, step), TOKENS, geometry=True)
        write_losses(tmp_path, "org/b", step, nats(loss - 0.5, step + 1), TOKENS, geometry=True)
    return tmp_path


def test_losses_are_paired_by_document(tree):
    results = Results.read(tree)
    comparison = compare((results, "org/a"), (results, "b"))
    (row,) = comparison.metrics
    difference = (nats(-0.5, 401) - nats(0.0, 400)).sum() / TOKENS.sum()
    assert row.difference == pytest.approx(difference)
    assert row.difference == pytest.approx(row.b - row.a)
    assert (row.paired, row.unit, row.n, row.better, row.reference) == (True, "document", 40, "org/b", "org/a")
    assert row.low < difference < row.high
    # Documents differ by 0.8 nats per token and the two models' by 0.03: pairing takes the first out.
    unpaired = only(compare((_without_arrays(tree), "org/a"), (_without_arrays(tree), "org/b")))
    assert not unpaired.paired
    assert (row.high - row.low) < (unpaired.high - unpaired.low) / 3
    assert unpaired.difference == pytest.approx(row.difference)
    assert "org/b's loss is 0.49" in comparison.sentence
    assert "nats/token lower than org/a's (" in comparison.sentence


def _without_arrays(tree) -> Results:
    for file in tree.rglob("results_*.json"):
        data = json.loads(file.read_text())
        data["config"]["lmsat"].pop("arrays", None)
        file.write_text(json.dumps(data))
    return Results.read(tree)


def test_tokens_to_the_higher_loss_and_geometry(tree):
    results = Results.read(tree)
    (pair,) = compare((results, "org/a"), (results, "org/b")).pairs
    reached = pair.tokens_to_loss
    assert reached.a == pytest.approx(400_000)
    # b passes a's final loss between its checkpoints at 100,000 and 200,000 tokens, near the end.
    assert 180_000 < reached.b < 205_000
    assert reached.at_most == ()
    values = {(row["task"], row["metric"]): (row["a"], row["b"]) for row in pair.geometry}
    assert values["lmsat_anisotropy", "anisotropy_last"] == (0.14, 0.14)
    assert values["lmsat_head", "singular_entropy"] == (2.0, 2.0)
    assert not {row.task for row in pair.metrics} & {"lmsat_anisotropy", "lmsat_head"}


def test_one_checkpoint_says_nothing_of_the_tokens_to_a_loss(tmp_path):
    write_losses(tmp_path / "a", "a", 100, nats(0, 0), TOKENS)
    write_losses(tmp_path / "b", "b", 100, nats(0.1, 1), TOKENS)
    (pair,) = compare(Results.read(tmp_path / "a"), Results.read(tmp_path / "b")).pairs
    assert pair.tokens_to_loss.b is None
    assert "one checkpoint" in pair.tokens_to_loss.reason


def test_checkpoints_at_equal_tokens_and_compute(tmp_path):
    for step in (100, 200, 300):
        write_losses(tmp_path, "a", step, nats(0, step), TOKENS)
    for step, tokens in ((10, 99_900), (20, 200_900), (40, 500_000)):
        write_losses(tmp_path, "b", step, nats(0.3, step), TOKENS, checkpoint={"tokens": tokens})
    results = Results.read(tmp_path)
    given = (results, "a"), (results, "b")

    def chosen(at):
        return [one.revision for one in compare(*given, at=at).pairs[0].checkpoints]

    assert chosen("end") == ["step300", "step40"]
    assert chosen("tokens") == ["step200", "step20"]
    assert chosen("compute") == ["step200", "step20"]
    assert any("300,000" in note or "3e+05" in note for note in compare(*given).pairs[0].notes)
    with pytest.raises(LmsatError, match="no two checkpoints are at equal tokens"):
        compare((results, "a@step300"), (results, "b"), at="tokens")


def test_two_checkpoints_of_one_run(tree):
    results = Results.read(tree)
    comparison = compare((results, "a@step200"), (results, "a"))
    assert only(comparison).difference == pytest.approx(-0.5, abs=0.02)
    assert comparison.pairs[0].tokens_to_loss is None
    with pytest.raises(LmsatError, match="are the same checkpoint"):
        compare((results, "a@step400"), (results, "a"))
    with pytest.raises(LmsatError, match="has no checkpoint 'step1': give one of step100, step200, step400"):
        compare((results, "a@step1"), (results, "a"))


def test_p_is_corrected_over_the_metrics_of_all_models(tree):
    write_losses(tree, "org/c", 400, nats(0.002, 5), TOKENS)
    results = Results.read(tree)
    comparison = compare(*((results, name) for name in "abc"))
    b, c = comparison.metrics
    assert (b.reference, b.model, c.reference, c.model) == ("org/a", "org/b", "org/a", "org/c")
    assert b.p == pytest.approx(2 * b.uncorrected_p)
    assert c.p == max(c.uncorrected_p, b.p)
    assert c.better is None
    assert "no difference is shown" in comparison.sentence
    assert "org/b's loss" in comparison.sentence


def test_two_tokenizers_by_bits_per_byte(tmp_path):
    other = TOKENS + RNG.integers(1, 30, 40)
    write_losses(tmp_path, "a", 100, nats(0, 0), TOKENS, bytes_M=5 * TOKENS)
    write_losses(tmp_path, "b", 100, nats(0.1, 1), other, bytes_M=5 * TOKENS, corpus={"tokenizer_sha256": "ef" * 32})
    results = Results.read(tmp_path)
    comparison = compare((results, "a"), (results, "b"))
    loss, bits = only(comparison), only(comparison, "bits_per_byte")
    assert loss.difference is None
    assert "tokenizers of a and b differ" in loss.reason
    assert bits.paired
    assert bits.difference == pytest.approx((nats(0.1, 1) - nats(0, 0)).sum() / np.log(2) / (5 * TOKENS).sum())
    assert "loss in bits per byte" in comparison.sentence


def test_a_text_that_two_tokenizers_cut_elsewhere_is_compared_as_far_as_both_go(tmp_path):
    sizes = 5 * TOKENS
    shorter = sizes[:31].copy()
    shorter[-1] -= 40
    write_losses(tmp_path, "a", 100, nats(0, 0), TOKENS, bytes_M=sizes)
    text = {"tokenizer_sha256": "ef" * 32, "sha256": "99" * 32}
    own = nats(0.1, 1)[:31]
    write_losses(tmp_path, "b", 100, own, TOKENS[:31] + 3, bytes_M=shorter, corpus=text)
    results = Results.read(tmp_path)
    bits = only(compare((results, "a"), (results, "b")), "bits_per_byte")
    assert bits.n == 30
    assert bits.difference == pytest.approx((own - nats(0, 0)[:31])[:30].sum() / np.log(2) / sizes[:30].sum())
    # With one tokenizer, another digest is another text.
    write_losses(tmp_path, "c", 100, own, TOKENS[:31], bytes_M=shorter, corpus={"sha256": "99" * 32})
    results = Results.read(tmp_path)
    row = only(compare((results, "a"), (results, "c")))
    assert row.difference is None
    assert "sha256=abababab in a, sha256=99999999 in c" in row.reason


@pytest.mark.parametrize(
    ("corpus", "said"),
    [({"window": 64}, "window=128 in a, window=64 in b"), ({"sha256": "00" * 32}, "sha256=abababab in a, sha256=0000")],
)
def test_what_was_measured_otherwise_is_named_and_not_compared(tmp_path, corpus, said):
    write_losses(tmp_path / "a", "a", 100, nats(0, 0), TOKENS)
    write_losses(tmp_path / "b", "b", 100, nats(0, 1), TOKENS, corpus=corpus)
    comparison = compare(Results.read(tmp_path / "a"), Results.read(tmp_path / "b"))
    row = only(comparison)
    assert (row.difference, row.low, row.p, row.mde) == (None, None, None, None)
    assert row.a is not None
    assert said in row.reason
    assert said in comparison.sentence


def test_a_model_with_another_head_is_compared_and_told(tmp_path):
    write_losses(tmp_path / "a", "a", 100, nats(0, 0), TOKENS)
    write_losses(tmp_path / "b", "a", 100, nats(0.2, 1), TOKENS, args={"head_rank": 8})
    (pair,) = compare(Results.read(tmp_path / "a"), Results.read(tmp_path / "b")).pairs
    assert pair.metrics[0].difference == pytest.approx(0.2, abs=0.02)
    assert any("no head_rank in" in note and "head_rank=8 in" in note for note in pair.notes)


def test_replicates_count_how_runs_differ(tmp_path):
    for model, losses in (("a", (0.0, 0.1, -0.1)), ("b", (0.15, 0.3, 0.0))):
        for run, loss in enumerate(losses):
            named = {"run": f"seed{run}", "revision": f"seed{run}-step100"}
            write_losses(tmp_path, model, 100, nats(loss, 10 + run), TOKENS, checkpoint=named)
    results = Results.read(tmp_path)
    row = only(compare((results, "a"), (results, "b")))
    single = only(compare((results, "a (seed0)"), (results, "b (seed0)")))
    assert row.difference == pytest.approx(0.15, abs=0.01)
    # Welch's test of three runs against three.
    welch = ttest_ind([0.0, 0.1, -0.1], [0.15, 0.3, 0.0], equal_var=False)
    assert row.p == pytest.approx(welch.pvalue, abs=0.02)
    assert row.better is None
    assert single.p < 0.01
    assert row.mde > row.high - row.difference
