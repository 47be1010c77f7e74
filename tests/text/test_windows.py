"""Windows are lm-eval's, no token is lost or counted twice, and batches are padded on the right."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.text.windows import PaddedBatch, Window, make_batches, rolling_windows

PREFIX = -1


def lm_eval_windows(tokens: list[int], length: int) -> list[tuple[list[int], list[int]]]:
    pairs = get_rolling_token_windows(tokens, prefix_token=PREFIX, max_seq_len=length, context_len=1)
    return list(map(make_disjoint_window, pairs))


@given(st.integers(1, 40), st.integers(0, 200))
def test_windows_are_those_of_lm_eval(length, n_tokens):
    tokens = np.arange(n_tokens)
    windows = list(rolling_windows(7, tokens, PREFIX, length))
    # lm-eval's pair is (context, continuation): together the window, of which the continuation is scored.
    ours = [(w.tokens[: -w.scored].tolist(), w.tokens[-w.scored :].tolist()) for w in windows]
    assert ours == lm_eval_windows(tokens.tolist(), length)
    assert all(window.document == 7 and len(window) == len(window.tokens) - 1 <= length for window in windows)
    scored = [token for _, continuation in ours for token in continuation]
    assert scored == tokens.tolist()


@pytest.mark.parametrize(
    ("n_tokens", "inputs", "scored"),
    [(1, [1], [1]), (7, [7], [7]), (8, [8], [8]), (9, [8, 8], [8, 1]), (24, [8, 8, 8], [8, 8, 8])],
)
def test_windows_of_eight(n_tokens, inputs, scored):
    windows = list(rolling_windows(0, np.arange(n_tokens), PREFIX, 8))
    assert [len(window) for window in windows] == inputs
    assert [window.scored for window in windows] == scored


@given(st.integers(2, 40), st.integers(0, 200))
def test_prefix_before_every_window(length, n_tokens):
    windows = list(rolling_windows(7, np.arange(n_tokens), PREFIX, length, policy="window"))
    scored = [token for window in windows for token in window.tokens[-window.scored :].tolist()]
    assert scored == list(range(n_tokens))
    for index, window in enumerate(windows):
        prefix, *rest = window.tokens.tolist()
        assert prefix == PREFIX
        assert rest == list(range(rest[0], rest[-1] + 1))
        assert rest[0] == 0 if index == 0 else len(rest) > window.scored, "a token is there to predict from"
    assert all(len(window) == length for window in windows[:-1])
    # The last window is filled up too.
    assert all(len(window) == min(length, n_tokens) for window in windows[-1:])
    # A later window has one token less to predict.
    assert len(windows) == (n_tokens > 0) + max(0, -(-(n_tokens - length) // (length - 1)))


def test_window_without_room_for_prefix_and_token():
    with pytest.raises(LmsatError, match="max_length=1 leaves no room"):
        list(rolling_windows(0, np.arange(3), PREFIX, 1, policy="window"))


def some_windows(sizes: list[tuple[int, int]]) -> list[Window]:
    """Make windows of so many inputs and scored tokens, all tokens of all windows distinct."""
    starts = np.cumsum([0, *(length + 1 for length, _ in sizes)])
    return [
        Window(index, np.arange(start, start + length + 1), min(scored, length))
        for index, (start, (length, scored)) in enumerate(zip(starts, sizes, strict=False))
    ]


sizes = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=30)


@given(sizes, st.integers(1, 200))
def test_batches_hold_each_window_once_within_the_budget_longest_first(sizes, budget):
    windows = some_windows(sizes)
    batches = make_batches(windows, budget)
    flat = [window for batch in batches for window in batch]
    assert sorted(window.document for window in flat) == list(range(len(windows)))
    assert [len(window) for window in flat] == sorted(map(len, windows), reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(map(len, batch)) <= budget
    # No two neighbours would fit together with less padding than the budget allows.
    for batch, following in itertools.pairwise(batches):
        assert (len(batch) + 1) * max(map(len, [*batch, following[0]])) > budget


@given(sizes)
def test_padded_batch(sizes):
    windows = some_windows(sizes)
    batch = PaddedBatch.of(windows)
    longest = max(map(len, windows))
    assert batch.inputs_BT.shape == (len(windows), longest)
    expected = []
    for row, window in enumerate(windows):
        tokens = window.tokens.tolist()
        assert batch.inputs_BT[row].tolist() == tokens[:-1] + [0] * (longest - len(window))
        for position in range(len(window) - window.scored, len(window)):
            expected.append((row * longest + position, tokens[position + 1], window.document, position))
    columns = (batch.scored_N, batch.targets_N, batch.documents_N, batch.positions_N)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected
    # Each target is the token after the input that predicts it.
    assert torch.equal(batch.inputs_BT.flatten()[batch.scored_N] + 1, batch.targets_N)
