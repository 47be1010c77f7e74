"""Answer lm-eval's requests for log-likelihoods: encode them as ``hf`` does, score them by one plan, note how."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.utils import has_bos_prefix

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.measurement.execution import Processes, cached
from lmsat_plugin.model.anatomy import dissect
from lmsat_plugin.scoring.continuations import ContinuationScorer, ScoringPlan, limits_on

logger = logging.getLogger(__name__)

Encoded = tuple[list[int], list[int]]
"""The tokens of a context and of its continuation."""


class _Planned(NamedTuple):
    """The plan of the requests of all processes."""

    plan: ScoringPlan
    first: int
    """The number of this process' first request."""
    name: str
    """The same on all processes."""


def answer_requests(
    lm: Any, requests: Sequence[Instance], processes: Processes, *, show_progress: bool
) -> list[tuple[float, bool]]:
    """Return the log-likelihood in nats of each request's continuation, and whether it is the greedy one.

    The processes, which all have to call, make one plan of their requests, and each computes a part of it. Notes in
    ``lm.lmsat_downstream`` how many tokens all of them were asked for and computed.

    Raises `LmsatError` for a continuation without tokens, or longer than the window.
    """
    # lm-eval asks for a request again where another process has more.
    distinct = list({id(request): request for request in requests}.values())
    planned = _plan(lm, distinct, processes)
    if not planned.plan.requests:
        return []
    window = torch.from_numpy(max(planned.plan.tree.tokens, key=len).astype(np.int64)).to(lm.device)
    batch = lm.batch_size
    scorer = ContinuationScorer(
        anatomy=processes.together(lambda: dissect(lm.model, window)),
        device=lm.device,
        batch_size=batch if isinstance(batch, int) else None,
        autocast=lm.mixed_precision_dtype,
        trust=cached(lm.lmsat_cache, "trust", lambda: lm.trust),
        processes=processes,
    )
    answers, record = scorer.answer(planned.plan, share=lm.shared_prefixes, show_progress=show_progress)
    if record.truncated and show_progress:
        logger.warning(
            "%d of %d requests are longer than the window of %d tokens: their prompts are cut from the left",
            *(record.truncated, planned.plan.requests, lm.max_length),
        )
    lm.lmsat_downstream = asdict(record)
    own = slice(planned.first, planned.first + len(distinct))
    pairs = zip(answers.sums[own].tolist(), answers.greedy[own].tolist(), strict=True)
    by_request = dict(zip(map(id, distinct), pairs, strict=True))
    return [by_request[id(request)] for request in requests]


def _plan(lm: Any, requests: Sequence[Instance], processes: Processes) -> _Planned:
    """Return the plan of the requests of all processes; the checkpoints of a series make it once."""
    pairs, limits = tuple(request.args for request in requests), limits_on(lm.device)
    cache = {} if lm.lmsat_cache is None else lm.lmsat_cache
    key = ("plan", lm.max_length, limits, pairs)

    def make() -> ScoringPlan:
        encoded = _encode(lm, pairs)
        for request, (_, continuation) in zip(requests, encoded, strict=True):
            _check(lm, request, continuation)
        return ScoringPlan.of(encoded, lm.max_length, limits)

    # Of the same requests here there may be others elsewhere.
    names = set(processes.gather(cache[key].name if key in cache else None))
    if len(names) > 1 or None in names:
        own = processes.together(make)
        made = processes.gather((own, uuid4().hex))
        plans = [plan for plan, _ in made]
        first = sum(plan.requests for plan in plans[: processes.rank])
        cache[key] = _Planned(own if len(plans) == 1 else ScoringPlan.joined(plans), first, made[0][1])
    return cache[key]


def _encode(lm: Any, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
    """Return the tokens of contexts and continuations, each string encoded once, many in one call."""
    texts = {text for pair in pairs if pair[0] for text in _texts(*pair)}
    bos = lm.tokenizer.decode(lm.prefix_token_id)
    # What begins with BOS is encoded in another way.
    texts_in_order = sorted(text for text in texts if not has_bos_prefix(text, bos))
    special = {} if lm.add_bos_token is None else {"add_special_tokens": lm.add_bos_token}
    ids = lm.tokenizer(texts_in_order, **special)["input_ids"] if texts_in_order else []
    lm.encoded_texts = dict(zip(texts_in_order, ids, strict=True))
    try:
        return [_encode_one(lm, *pair) for pair in pairs]
    finally:
        lm.encoded_texts = {}


def _texts(context: str, continuation: str) -> tuple[str, str]:
    """Return the texts that lm-eval's ``_encode_pair`` encodes."""
    return context.rstrip(), context + continuation


def _encode_one(lm: Any, context: str, continuation: str) -> Encoded:
    """Encode as lm-eval's ``loglikelihood`` does."""
    if context:
        return lm._encode_pair(context, continuation)
    tokens = lm.tok_encode(continuation, add_special_tokens=False)
    if tokens[:1] == [lm.prefix_token_id]:
        return tokens[:1], tokens[1:]
    return [lm.prefix_token_id], tokens


def _check(lm: Any, request: Instance, continuation: list[int]) -> None:
    if continuation and len(continuation) <= lm.max_length:
        return
    what = f"the continuation {request.args[1][:40]!r}{place_of(request)} has"
    if not continuation:
        raise LmsatError(f"{what} no tokens of its own: correct the task's choices")
    raise LmsatError(
        f"{what} {len(continuation)} tokens, and the window {lm.max_length}: "
        "set max_length higher, or leave the task out"
    )


def place_of(request: Instance) -> str:
    """Return the task and the document of a request, in brackets; nothing for one that is of no task."""
    return "" if request.task_name is None else f" (task {request.task_name}, document {request.doc_id})"
