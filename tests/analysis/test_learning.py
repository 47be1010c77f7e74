"""How runs learn, against sums over single tokens: what cancels, which parts get worse, where the loss slows down."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from token_loss_trees import MadeText, write_addition

from lmsat_plugin.analysis.learning import find_learning, interference
from lmsat_plugin.analysis.learning.changes import POSITIONS
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import Results
from lmsat_plugin.text.frequencies import THIRDS


@pytest.fixture
def text():
    return MadeText()


def losses_of(text: MadeText, count: int, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    falling = [4 - 0.2 * k + 0.5 * rng.standard_normal(len(text.ids_N)) for k in range(count)]
    return [losses_N.astype(np.float32).astype(np.float64) for losses_N in falling]


def brute_force(text: MadeText, before_N, after_N) -> dict[str, dict[str, float]]:
    """Return what is known of each part, token by token."""
    counts, frequency, place = Counter(text.ids_N.tolist()), {}, 0
    for token, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        frequency[token] = ("frequent", "medium", "rare")[min(2, int(3 * (place + count / 2) / len(text.ids_N)))]
        place += count
    at, position, place = Counter(text.positions_N.tolist()), {}, 0
    for where in sorted(at):
        position[where] = ("early", "middle", "late")[min(2, int(3 * (place + at[where] / 2) / len(text.ids_N)))]
        place += at[where]
    parts: dict[str, list[float]] = {}
    for token, where, before, after in zip(text.ids_N, text.positions_N, before_N, after_N, strict=True):
        for name in ("all", frequency[token], position[where]):
            parts.setdefault(name, []).append(after - before)
    rises = sum(change for change in parts["all"] if change > 0)
    return {
        name: {
            "tokens": len(changes),
            "change": sum(changes) / len(changes),
            "worse": sum(change > 0 for change in changes) / len(changes),
            "rise_share": sum(change for change in changes if change > 0) / rises,
            "interference": 1 - abs(sum(changes)) / sum(map(abs, changes)),
        }
        for name, changes in parts.items()
    }


@pytest.mark.parametrize("later", [False, True])
def test_changes_are_those_of_single_tokens(tmp_path, text, later):
    """Also where the losses of tokens were measured later, into files without values."""
    losses = losses_of(text, 4)
    for step, losses_N in zip((0, 10, 20, 40), losses, strict=True):
        path = text.write(tmp_path, step, losses_N, tokens=not later)
        if later:
            of_tokens = text.arrays(losses_N)
            write_addition(path, {name: of_tokens[name] for name in ("loss/by_token", "loss/by_token_ids")})
    (run,) = find_learning(Results.read(tmp_path))
    assert (run.model, run.axis, run.checkpoints, run.notes) == ("m", "step", 4, ())
    assert [(change.before, change.at) for change in run.changes] == [(0, 10), (10, 20), (20, 40)]
    for change, before_N, after_N in zip(run.changes, losses[:-1], losses[1:], strict=True):
        expected = brute_force(text, before_N, after_N)
        whole = expected.pop("all")
        assert change.loss - change.loss_before == pytest.approx(whole["change"])
        for name in ("change", "worse", "interference"):
            assert getattr(change, name) == pytest.approx(whole[name])
        assert change.parts.keys() == expected.keys() == {*THIRDS, *POSITIONS}
        for part, values in expected.items():
            assert {name: getattr(change.parts[part], name) for name in values} == pytest.approx(values), part
        rising = [part for part, values in expected.items() if values["change"] > 0 > whole["change"]]
        assert sorted(change.rising_parts) == sorted(rising)
    frame = run.to_frame()
    assert frame.interference.tolist() == [change.interference for change in run.changes]
    assert frame["parts.rare.change"].tolist() == [change.parts["rare"].change for change in run.changes]


def test_without_tokens_d_is_bounded_and_it_is_said(tmp_path, text):
    losses = losses_of(text, 3)
    for step, losses_N in enumerate(losses):
        text.write(tmp_path, step, losses_N, tokens=False)
        text.write(tmp_path / "full", step, losses_N)
    (bounded,), (full,) = (find_learning(Results.read(tmp_path / name)) for name in ("m-", "full"))
    for least, exact in zip(bounded.changes, full.changes, strict=True):
        assert least.interference is None
        assert least.worse is None
        assert "no array by_token" in least.reason
        assert 0 <= least.interference_at_least <= exact.interference
        assert least.parts.keys() == {"early", "middle", "late"}
        for name, part in least.parts.items():
            assert part.tokens == exact.parts[name].tokens
            assert part.change == pytest.approx(exact.parts[name].change, abs=1e-6)
            assert part.worse is None


def test_d_in_closed_form():
    assert interference(np.array([-1.0, -2.0, 0.0])) == 0
    assert interference(np.array([1.0, -1.0])) == 1
    assert interference(np.array([-3.0, 1.0])) == 0.5
    assert interference(np.zeros(3)) is None


def test_the_same_weights_twice_cancel_nothing(tmp_path, text):
    (losses_N,) = losses_of(text, 1)
    for step in (1, 2):
        text.write(tmp_path, step, losses_N)
    (change,) = find_learning(Results.read(tmp_path))[0].changes
    assert (change.change, change.interference, change.worse) == (0, None, 0)
    assert change.reason == "no token's loss changes"
    assert change.parts["rare"].rise_share is None


def test_a_deceleration_is_found_with_its_loss_and_slopes(tmp_path, text):
    """Of a power law whose exponent falls from 0.3 to 0.05 at step 100."""
    steps = np.unique(np.geomspace(5, 2000, 30).round()).astype(int)
    (unlike_N,) = losses_of(text, 1)
    unlike_N /= unlike_N.mean()
    for step in steps:
        loss = 8 * (step / 100) ** (-0.3 if step < 100 else -0.05)
        text.write(tmp_path, int(step), loss * unlike_N)
    (run,) = find_learning(Results.read(tmp_path), repetitions=50)
    found = run.deceleration
    assert found.low <= 100 <= found.high
    assert found.value == pytest.approx(100, rel=0.1)
    assert found.loss == pytest.approx(8, rel=0.05)
    assert (found.rate_before, found.rate_after) == pytest.approx((0.3, 0.05), abs=0.02)
    # All tokens fall together.
    assert (run.interference_before, run.interference_after) == pytest.approx((0, 0), abs=1e-6)


def test_few_checkpoints_have_no_deceleration(tmp_path, text):
    for step, losses_N in enumerate(losses_of(text, 3), 1):
        text.write(tmp_path, step, losses_N)
    (run,) = find_learning(Results.read(tmp_path))
    assert run.deceleration.value is None
    assert "m has 3 checkpoints after the first step: a curve needs 10" in run.deceleration.reason


def test_other_tokenizers_and_tokens_are_not_compared(tmp_path, text):
    one, two, three, four = losses_of(text, 4)
    text.write(tmp_path, 1, one)
    text.write(tmp_path, 2, two)
    text.write(tmp_path, 3, three, corpus={"tokenizer_sha256": "ef" * 32})
    other = MadeText(seed=5)
    other.write(tmp_path, 4, four, corpus={"tokenizer_sha256": "ef" * 32})
    (run,) = find_learning(Results.read(tmp_path))
    assert [(change.before, change.at) for change in run.changes] == [(1, 2)]
    assert run.notes == (
        "m: step 2 and step 3 are not compared: their tokenizers differ: measure both alike",
        "m: step 3 and step 4 are not compared: the tokens of their texts differ: measure both alike",
    )


def test_results_of_other_versions_are_not_compared(tmp_path, text):
    _, second = (text.write(tmp_path, step, losses_N) for step, losses_N in enumerate(losses_of(text, 2)))
    second.write_text(second.read_text("utf-8").replace('"loss": {"version": 1', '"loss": {"version": 2'))
    with pytest.raises(LmsatError, match="are not compared: version=1 in step 0, version=2 in step 1: measure"):
        find_learning(Results.read(tmp_path))


def test_checkpoints_without_a_finite_loss_are_left_out(tmp_path, text):
    one, two, three = losses_of(text, 3)
    for step, losses_N in enumerate((one, two * np.nan, three)):
        text.write(tmp_path, step, losses_N)
    (run,) = find_learning(Results.read(tmp_path))
    assert [(change.before, change.at) for change in run.changes] == [(0, 2)]
    assert run.notes == ("m: 1 of 3 checkpoints are left out, whose loss is not finite",)


def test_losses_of_tokens_that_are_not_the_results_are_not_used(tmp_path, text, caplog):
    one, two = losses_of(text, 2)
    text.write(tmp_path, 1, one)
    path = text.write(tmp_path, 2, two, tokens=False)
    write_addition(path, {"loss/by_token": (two + 0.1).astype(np.float32), "loss/by_token_ids": text.ids_N})
    (change,) = find_learning(Results.read(tmp_path))[0].changes
    assert change.interference is None
    assert "the mean of by_token is" in change.reason
    assert "the mean of by_token is" in caplog.text


def test_other_texts_are_refused(tmp_path, text):
    for step, losses_N in enumerate(losses_of(text, 2)):
        text.write(tmp_path, step, losses_N, corpus={"window": 7 + step})
    with pytest.raises(LmsatError, match="which do not compare"):
        find_learning(Results.read(tmp_path))


def test_one_checkpoint_is_refused(tmp_path, text):
    text.write(tmp_path, 1, losses_of(text, 1)[0])
    with pytest.raises(LmsatError, match="m has 1 checkpoint with a known place and a finite loss: changes need two"):
        find_learning(Results.read(tmp_path))


def test_results_without_arrays_are_refused(tmp_path, text):
    for step, losses_N in enumerate(losses_of(text, 2)):
        text.write(tmp_path, step, losses_N).with_suffix(".safetensors").unlink()
    with pytest.raises(LmsatError, match=r"the file is missing"):
        find_learning(Results.read(tmp_path))
