"""Answer requests for the log-likelihood of continuations: plan, check that prefixes may be shared, score."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from lmsat_plugin.errors import first_sentence
from lmsat_plugin.measurement.execution import Processes
from lmsat_plugin.measurement.forward import token_bar
from lmsat_plugin.model.anatomy import Anatomy, architecture_of
from lmsat_plugin.model.float32 import exact_float32
from lmsat_plugin.model.memory import is_out_of_memory
from lmsat_plugin.model.packing import without_packing
from lmsat_plugin.scoring.attention import Attention
from lmsat_plugin.scoring.batches import Continuation
from lmsat_plugin.scoring.prefix_tree import WHOLE, Limits, Tree, packed
from lmsat_plugin.scoring.scorer import Likelihoods, Scorer
from lmsat_plugin.scoring.ways import Way, few_of, share_by, ways_of

logger = logging.getLogger(__name__)

CPU_LIMITS = Limits(row=512, trunk=192)
"""On a CPU a batch of one row is as fast as any, and attention to what is masked costs as much as any other."""
GPU_LIMITS = Limits(row=4096, trunk=0)
_CPU_BATCH_TOKENS, _GPU_BATCH_TOKENS = 4096, 65536
_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4}
_HALF_TOLERANCE = 3e-2


Trust = dict[Any, tuple[int, str | None]]
"""By what identifies an architecture and the ways of sharing: up to which length it was checked, and what is wrong."""


@dataclass(frozen=True)
class ScoringRecord:
    """What is recorded of how requests were answered."""

    shared_prefixes: bool
    tokens_asked: int
    """The tokens of all requests, each with its own prompt."""
    tokens_computed: int
    truncated: int
    """Requests whose prompt was longer than the window, and was cut from the left."""
    reason: str | None = None
    """Why prefixes were not shared, where they could have been."""


@dataclass(frozen=True, kw_only=True)
class ScoringPlan:
    """Requests as sequences, each once, with what is scored of them."""

    sequences: list[bytes]
    """`packed` tokens."""
    continuations: list[list[Continuation]]
    """Of each sequence."""
    requests: int
    limits: Limits
    asked: int = 0
    """The tokens of all requests."""
    truncated: int = 0
    _own: dict[tuple[Processes, bool], ScoringPlan] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, requests: Sequence[tuple[list[int], list[int]]], max_length: int, limits: Limits) -> ScoringPlan:
        """Plan requests: the tokens of a context, and of its continuation, which has at least one.

        A prompt that is longer than the window ``max_length`` is cut from the left, as lm-eval's ``hf`` does.
        """
        truncated = asked = 0
        by_sequence: dict[bytes, list[Continuation]] = {}
        for number, (context, continuation) in enumerate(requests):
            tokens = context + continuation
            inputs = tokens[-(max_length + 1) :][:-1]
            truncated += len(tokens) > max_length + 1
            asked += len(inputs)
            by_sequence.setdefault(packed(inputs), []).append(Continuation(number, tuple(continuation)))
        return cls(
            sequences=list(by_sequence),
            continuations=list(by_sequence.values()),
            requests=len(requests),
            limits=limits,
            asked=asked,
            truncated=truncated,
        )

    @classmethod
    def joined(cls, plans: Sequence[ScoringPlan]) -> ScoringPlan:
        """Return the plan of several plans' requests, numbered one plan after the other."""
        by_sequence: dict[bytes, list[Continuation]] = {}
        before = 0
        for plan in plans:
            for sequence, continuations in zip(plan.sequences, plan.continuations, strict=True):
                numbered = [each._replace(request=before + each.request) for each in continuations]
                by_sequence.setdefault(sequence, []).extend(numbered)
            before += plan.requests
        return cls(
            sequences=list(by_sequence),
            continuations=list(by_sequence.values()),
            requests=before,
            limits=plans[0].limits,
            asked=sum(plan.asked for plan in plans),
            truncated=sum(plan.truncated for plan in plans),
        )

    def of_sequences(self, chosen: Sequence[int]) -> ScoringPlan:
        """Return the plan of some sequences alone; requests keep their numbers."""
        return replace(
            self,
            sequences=[self.sequences[index] for index in chosen],
            continuations=[self.continuations[index] for index in chosen],
        )

    def in_order(self, tree: Tree) -> list[list[Continuation]]:
        """Return what is scored of each sequence, in a tree's order."""
        return [self.continuations[index] for index in tree.order]

    @cached_property
    def tree(self) -> Tree:
        """The plan with common prefixes shared."""
        return Tree(self.sequences, self.limits)

    @cached_property
    def whole(self) -> Tree:
        """The plan without sharing."""
        return Tree(self.sequences, WHOLE)

    def own(self, processes: Processes, *, share: bool) -> ScoringPlan:
        """Return the part of the plan that this process computes."""
        if processes.size == 1:
            return self
        if (processes, share) not in self._own:
            tree = self.tree if share else self.whole
            borders = tree.deal(processes.size)
            chosen = tree.order[borders[processes.rank] : borders[processes.rank + 1]]
            self._own[processes, share] = self.of_sequences(chosen)
        return self._own[processes, share]


@dataclass(frozen=True, kw_only=True)
class ContinuationScorer:
    """Scores continuations with one model.

    Args:
        anatomy: The model taken apart.
        device: Where its inputs go.
        batch_size: How many sequences a batch may hold, of the length of the longest; None where that is not known.
        autocast: The type of mixed precision.
        trust: What is known of architectures; it is added to.
        processes: Those that have the same plan, and share it.
    """

    anatomy: Anatomy
    device: torch.device
    batch_size: int | None = None
    autocast: torch.dtype | None = None
    trust: Trust = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)

    @exact_float32()
    @without_packing()
    def answer(
        self, plan: ScoringPlan, *, share: bool = True, show_progress: bool = False
    ) -> tuple[Likelihoods, ScoringRecord]:
        """Return the answers to a plan's requests, and how they were found, both the same on all processes."""
        reason = None
        if share and plan.tree.shares:
            reasons = self.processes.gather(self.processes.together(lambda: self._distrust(plan)))
            reason = next(filter(None, reasons), None)
        share = share and reason is None

        def score() -> tuple[Likelihoods, int]:
            own = plan.own(self.processes, share=share)
            tree = own.tree if share else own.whole
            with token_bar("loglikelihood", tree.computed, shown=show_progress) as progress:
                answers = self._run(own, tree, progress)
            if share:
                self._settle_nan(own, answers)
            return answers, tree.computed

        scored = self.processes.gather(self.processes.together(score))
        return Likelihoods.joined([answers for answers, _ in scored]), ScoringRecord(
            shared_prefixes=share and plan.tree.shares,
            tokens_asked=plan.asked,
            tokens_computed=sum(computed for _, computed in scored),
            truncated=plan.truncated,
            reason=reason,
        )

    def _run(self, plan: ScoringPlan, tree: Tree, progress: tqdm | None = None) -> Likelihoods:
        longest = max((len(tokens) for tokens in tree.tokens), default=1)
        auto = _GPU_BATCH_TOKENS if self.device.type == "cuda" else _CPU_BATCH_TOKENS
        scorer = Scorer(
            anatomy=self.anatomy,
            device=self.device,
            batch_tokens=auto if self.batch_size is None else self.batch_size * longest,
            autocast=self.autocast,
            tree=tree,
            continuations=plan.in_order(tree),
            answers=Likelihoods.empty(plan.requests),
        )
        scorer.run(progress)
        return scorer.answers

    def _settle_nan(self, plan: ScoringPlan, answers: Likelihoods) -> None:
        """Compute whole, in the order of the requests, what is NaN, up to the first that is NaN then, too.

        NaN of one path reaches others of its row: masked values are multiplied by zero.
        """
        if not (bad := np.nonzero(np.isnan(answers.sums))[0].tolist()):
            return
        sequences = {each.request: index for index, some in enumerate(plan.continuations) for each in some}
        for request in bad:
            one = plan.of_sequences([sequences[request]])
            alone = self._run(one, one.whole)
            answers.sums[request], answers.greedy[request] = alone.sums[request], alone.greedy[request]
            if np.isnan(alone.sums[request]):
                break

    def _distrust(self, plan: ScoringPlan) -> str | None:
        """Return why the model cannot share prefixes; None if a part of the plan is the same computed both ways.

        What was the same for longer sequences, shared in the same ways, is not computed again.
        """
        model = self.anatomy.model
        ways = ways_of(plan.tree)
        if not ways:
            return None  # beginnings of one another are one path
        key = type(model).__name__, str(model.dtype), repr(architecture_of(model.config)), ways
        longest, (known, reason) = max(map(len, plan.tree.tokens)), self.trust.get(key, (0, None))
        if reason is None and known < longest:
            reason = Attention(model).trouble or self._compare(plan, ways)
            if reason is not None:
                logger.warning("Prefixes are not shared (%s): each request is computed whole", reason)
            self.trust[key] = longest, reason
        return reason

    def _compare(self, plan: ScoringPlan, ways: Iterable[Way]) -> str | None:
        few = plan.of_sequences(few_of(plan.tree))
        name = type(self.anatomy.model).__name__
        expected = self._run(few, few.whole).sums
        tolerance = _TOLERANCES.get(self.anatomy.model.dtype, _HALF_TOLERANCE)
        for way in sorted(ways):
            tree = share_by(few.sequences, way)
            try:
                found = self._run(few, tree).sums
            except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
                if is_out_of_memory(error):
                    raise
                return f"{name} does not take {way}: {first_sentence(error)}"
            # What has diverged has both ways.
            if not np.isclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True).all():
                return f"{name} gives other numbers with {way}"
        return None


def limits_on(device: torch.device) -> Limits:
    """Return when tokens are shared on a device."""
    return GPU_LIMITS if device.type == "cuda" else CPU_LIMITS
