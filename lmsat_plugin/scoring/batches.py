"""Rows of a plan as a batch for a model: tokens, positions, who attends to whom, and where which token is scored.

Shapes: B rows, T tokens of the longest row, P tokens of the trunk before them, S scored places, N scored tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from lmsat_plugin.scoring.prefix_tree import Row, Tree, Trunk


class Continuation(NamedTuple):
    """The tokens that one request scores, the last of which follows the last token of its sequence."""

    request: int
    targets: tuple[int, ...]


@dataclass(frozen=True)
class ScoredTokens:
    """Which tokens are scored at which places of a batch, place by place."""

    places_S: np.ndarray
    """Places whose states are needed: ``row · T + token``, ascending."""
    rows_N: np.ndarray
    """The index in ``places_S`` of each scored token, ascending."""
    targets_N: np.ndarray
    requests_N: np.ndarray


@dataclass(frozen=True)
class RowBatch:
    """Rows behind one trunk, padded at the right."""

    inputs_BT: torch.Tensor
    positions_BT: torch.Tensor
    attends_BTT: torch.Tensor | None
    """Which token attends to which; None where each attends to all before it."""
    scored: ScoredTokens


def make_batch(tree: Tree, continuations: Sequence[Sequence[Continuation]], rows: Sequence[Row]) -> RowBatch:
    """Pack rows into a batch. ``continuations`` are those of each sequence, in the tree's order."""
    packed = [_Packed.of(tree, continuations, row) for row in rows]
    longest = max(row.size for row in rows)
    inputs_BT = np.zeros((len(rows), longest), dtype=np.int64)
    positions_BT = np.zeros((len(rows), longest), dtype=np.int64)
    # Padding attends to itself: a softmax over nothing is not a number.
    attends_BTT = np.broadcast_to(np.eye(longest, dtype=bool), (len(rows), longest, longest)).copy()
    for index, (row, each) in enumerate(zip(rows, packed, strict=True)):
        inputs_BT[index, : row.size], positions_BT[index, : row.size] = each.tokens_T, each.positions_T
        attends_BTT[index, : row.size, : row.size] = each.attends_TT
    linear = all(each.is_path for each in packed)
    scored = [(index * longest + each.places_N, each.targets_N, each.requests_N) for index, each in enumerate(packed)]
    return RowBatch(
        inputs_BT=torch.from_numpy(inputs_BT),
        positions_BT=torch.from_numpy(positions_BT),
        attends_BTT=None if linear else torch.from_numpy(attends_BTT),
        scored=_by_place(*(np.concatenate(arrays) for arrays in zip(*scored, strict=True))),
    )


def make_trunk(tree: Tree, continuations: Sequence[Sequence[Continuation]], trunk: Trunk) -> RowBatch:
    """Return the tokens of a trunk as a batch of one row."""
    places, targets, requests = [], [], []
    for sequence in range(trunk.first, trunk.last):
        length = len(tree.tokens[sequence])
        for continuation in continuations[sequence]:
            depths = np.arange(length - len(continuation.targets), length)
            inside = (depths >= trunk.start) & (depths < trunk.stop)
            if inside.any():
                places.append(depths[inside] - trunk.start)
                targets.append(np.asarray(continuation.targets)[inside])
                requests.append(np.full(int(inside.sum()), continuation.request))
    positions_T = torch.arange(trunk.start, trunk.stop)
    return RowBatch(
        inputs_BT=torch.from_numpy(tree.tokens[trunk.path][trunk.start : trunk.stop].astype(np.int64))[None],
        positions_BT=positions_T[None],
        attends_BTT=None,
        scored=_by_place(_joined(places), _joined(targets), _joined(requests)),
    )


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays).astype(np.int64) if arrays else np.zeros(0, dtype=np.int64)


def _by_place(places_N: np.ndarray, targets_N: np.ndarray, requests_N: np.ndarray) -> ScoredTokens:
    order = np.argsort(places_N, kind="stable")
    places_S, rows_N = np.unique(places_N[order], return_inverse=True)
    return ScoredTokens(places_S, rows_N, targets_N[order], requests_N[order])


@dataclass(frozen=True)
class _Packed:
    """One row: its sequences' tokens, each once, in the order of the tree."""

    tokens_T: np.ndarray
    positions_T: np.ndarray
    attends_TT: np.ndarray
    is_path: bool
    places_N: np.ndarray
    targets_N: np.ndarray
    requests_N: np.ndarray

    @classmethod
    def of(cls, tree: Tree, continuations: Sequence[Sequence[Continuation]], row: Row) -> _Packed:
        tokens_T = np.zeros(row.size, dtype=np.int64)
        positions_T = np.zeros(row.size, dtype=np.int64)
        attends_TT = np.zeros((row.size, row.size), dtype=bool)
        places, targets, requests = [], [], []
        path, used, is_path = np.zeros(0, dtype=np.int64), 0, True
        for sequence in range(row.first, row.stop):
            tokens = tree.tokens[sequence]
            shared = row.start if sequence == row.first else max(int(tree.shared[sequence]), row.start)
            own = np.arange(used, used + max(len(tokens) - shared, 0))
            is_path &= shared - row.start == len(path) or not len(own)
            path = np.concatenate([path[: shared - row.start], own])
            if len(own):
                used += len(own)
                tokens_T[own], positions_T[own] = tokens[shared:], np.arange(shared, len(tokens))
                attends_TT[np.ix_(own, path[: -len(own)])] = True
                attends_TT[own[0] : used, own[0] : used] = np.tri(len(own), dtype=bool)
            for continuation in continuations[sequence]:
                depths = np.arange(len(tokens) - len(continuation.targets), len(tokens))
                inside = depths >= row.start
                places.append(path[depths[inside] - row.start])
                targets.append(np.asarray(continuation.targets, dtype=np.int64)[inside])
                requests.append(np.full(int(inside.sum()), continuation.request))
        return cls(
            tokens_T=tokens_T,
            positions_T=positions_T,
            attends_TT=attends_TT,
            is_path=is_path,
            places_N=_joined(places),
            targets_N=_joined(targets),
            requests_N=_joined(requests),
        )
