"""Compute the log-likelihoods of continuations by a plan, in smaller batches when memory runs out.

Shapes: B rows, T tokens of a row, S scored places of a batch, N scored tokens, D width, V rows of the head.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import DynamicCache

from lmsat_plugin.model.anatomy import Anatomy, check_positions
from lmsat_plugin.model.cross_entropy import score_targets, targets_in_logits
from lmsat_plugin.model.memory import give_back_memory, is_out_of_memory, no_memory_for
from lmsat_plugin.scoring.attention import Attention, branch
from lmsat_plugin.scoring.batches import Continuation, RowBatch, make_batch, make_trunk
from lmsat_plugin.scoring.prefix_tree import Row, Tree, Trunk

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Likelihoods:
    """What the requests were answered, by their numbers."""

    sums: np.ndarray
    """Log-likelihoods in nats, float64."""
    greedy: np.ndarray
    """Whether each token of the continuation is the most probable one at its place."""

    @classmethod
    def empty(cls, requests: int) -> Likelihoods:
        """Return those of empty continuations."""
        return cls(np.zeros(requests), np.ones(requests, dtype=bool))

    @classmethod
    def joined(cls, parts: Sequence[Likelihoods]) -> Likelihoods:
        """Return those of which each part has some, and the others empty."""
        return cls(
            np.sum([part.sums for part in parts], axis=0), np.logical_and.reduce([part.greedy for part in parts])
        )


@dataclass(kw_only=True)
class Scorer:
    """Runs one plan through one model.

    Args:
        anatomy: The model taken apart.
        device: Where its inputs go.
        batch_tokens: How many tokens a batch may hold, those of the trunk in each row counted. It is halved where
            memory runs out.
        autocast: The type of mixed precision.
        tree: The plan.
        continuations: What is scored of each sequence, in the tree's order.
        answers: What the continuations' log-likelihoods are added to.
    """

    anatomy: Anatomy
    device: torch.device
    batch_tokens: int
    autocast: torch.dtype | None = None
    tree: Tree
    continuations: Sequence[Sequence[Continuation]]
    answers: Likelihoods

    @cached_property
    def _attention(self) -> Attention:
        return Attention(self.anatomy.model)

    @torch.no_grad()
    def run(self, progress: tqdm | None = None) -> None:
        """Score all continuations.

        Raises `LmsatError` if memory does not suffice for a single sequence, and for positions beyond the model's.
        """
        check_positions(self.anatomy.model, max(map(len, self.tree.tokens), default=0))
        waiting: list[tuple[Trunk, DynamicCache | None]] = [(self.tree.root, None)]
        while waiting:
            trunk, cache = waiting.pop()
            if trunk.stop > trunk.start:
                cache = self._run_trunk(trunk, cache)
                _advance(progress, trunk.stop - trunk.start)
            for rows in self._batches(trunk):
                self._run_rows(rows, cache)
                _advance(progress, sum(row.size for row in rows))
            waiting += [(behind, cache) for behind in trunk.trunks]

    def _batches(self, trunk: Trunk) -> Iterator[list[Row]]:
        rows = sorted(trunk.rows, key=lambda row: -row.size)
        while rows:
            count = max(1, self.batch_tokens // (rows[0].size + trunk.stop))
            yield rows[:count]
            rows = rows[count:]

    def _run_trunk(self, trunk: Trunk, cache: DynamicCache | None) -> DynamicCache:
        """Return the keys and values up to the end of a trunk."""
        grown = branch(cache, 1)
        try:
            self._forward(make_trunk(self.tree, self.continuations, trunk), grown, trunk.start)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise no_memory_for(f"one sequence of {trunk.stop} tokens") from error
        if grown.get_seq_length() != trunk.stop:
            raise ValueError("it keeps no keys and values")
        return grown

    def _run_rows(self, rows: Sequence[Row], cache: DynamicCache | None) -> None:
        waiting = [list(rows)]
        while waiting:
            part = waiting.pop()
            try:
                batch = make_batch(self.tree, self.continuations, part)
                self._forward(batch, None if cache is None else branch(cache, len(part)), part[0].start)
                continue
            except (RuntimeError, MemoryError) as error:
                smaller = _split(self.tree, part)
                if not is_out_of_memory(error):
                    raise
                if len(smaller) == 1:
                    raise no_memory_for(f"one sequence of {part[0].start + part[0].size} tokens") from error
            # Outside the except clause, whose traceback holds the tensors that have to go.
            if len(part) > 1:
                self.batch_tokens = max(1, self.batch_tokens // 2)
                logger.warning("Out of memory: batches of %d tokens from here on", self.batch_tokens)
            give_back_memory(self.device)
            waiting += smaller

    def _forward(self, batch: RowBatch, cache: DynamicCache | None, prefix: int) -> None:
        """Run one batch, and add its scores once it is through."""
        arguments: dict[str, Any] = {"use_cache": cache is not None, "input_ids": batch.inputs_BT.to(self.device)}
        if cache is not None:
            arguments["past_key_values"] = cache
        arguments |= self._attention.arguments(batch, prefix, self.device)
        anatomy, scored = self.anatomy, batch.scored
        with nullcontext() if self.autocast is None else torch.autocast(self.device.type, dtype=self.autocast):
            if anatomy.head is None:
                final_BTX = anatomy.model(**arguments).logits
            else:
                final_BTX = anatomy.base(**arguments).last_hidden_state
        if not len(scored.targets_N):
            return
        places_S = torch.from_numpy(scored.places_S).to(final_BTX.device)
        final_SX = final_BTX.flatten(0, 1)[places_S]
        del final_BTX
        rows_N, targets_N = torch.from_numpy(scored.rows_N), torch.from_numpy(scored.targets_N)
        if anatomy.head is None:
            logs_N, greedy_N = targets_in_logits(final_SX, rows_N, targets_N)
        else:
            logs_N, greedy_N = score_targets(final_SX, rows_N, targets_N, anatomy.head)
        np.add.at(self.answers.sums, scored.requests_N, logs_N.cpu().numpy())
        np.logical_and.at(self.answers.greedy, scored.requests_N, greedy_N.cpu().numpy())


def _split(tree: Tree, rows: list[Row]) -> list[list[Row]]:
    """Return rows in two halves, or one row as its sequences, each whole behind the trunk."""
    if len(rows) > 1:
        return [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    [row] = rows
    size = [max(len(tree.tokens[place]) - row.start, 0) for place in range(row.first, row.stop)]
    return [[Row(row.first + place, row.first + place + 1, row.start, each)] for place, each in enumerate(size) if each]


def _advance(progress: tqdm | None, tokens: int) -> None:
    if progress is not None:
        progress.update(tokens)
