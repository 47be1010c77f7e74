"""Keep plugins' probes from changing what others measure: they get copies, and the model is compared after them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from lmsat_plugin.model.cross_entropy import TokenPredictions
from lmsat_plugin.model.fixed import AlteredError, model_digest
from lmsat_plugin.probe import Probe, ProbeContext, TokenBatch
from lmsat_plugin.text.tokenization import tokenizer_hash


@dataclass
class Foreign:
    """The probes of a run that are not lmsat's own, and what they measure as it was before."""

    names: frozenset[str]
    context: ProbeContext
    _before: tuple[str, ...] = ()

    @classmethod
    def among(cls, probes: Mapping[str, Probe], context: ProbeContext) -> Foreign:
        """Find those among the probes of a run."""
        names = (name for name, probe in probes.items() if not type(probe).__module__.startswith("lmsat_plugin."))
        foreign = cls(frozenset(names), context)
        if foreign.names:
            foreign._before = foreign._digests()
        return foreign

    @contextmanager
    def watched(self, *running: str) -> Iterator[None]:
        """Raise `AlteredError` where the model, the tokens or the tokenizer are others after these probes ran."""
        foreign = sorted(self.names.intersection(running))
        if not foreign:
            yield
            return
        try:
            yield
        finally:
            self._check(foreign)

    def _check(self, foreign: Sequence[str]) -> None:
        after = self._digests()
        changed = [
            part
            for part, before, digest in zip(("model", "tokens", "tokenizer"), self._before, after, strict=True)
            if before != digest
        ]
        if changed:
            which = f"the probe '{foreign[0]}'" if len(foreign) == 1 else f"one of the probes {', '.join(foreign)}"
            raise AlteredError(
                f"{which} changed the {changed[0]} that it measured: leave it out, or have it work on a copy"
            )

    @staticmethod
    def copied(arguments: Sequence[Any]) -> list[Any]:
        """Return copies of what an update of a probe receives, so that what it does to them stays its own."""
        return [_copy(argument) for argument in arguments]

    def _digests(self) -> tuple[str, ...]:
        tokens = hashlib.sha256()
        if (corpus := self.context.corpus) is not None:
            for document in corpus.documents:
                tokens.update(f"{document.label} {document.n_bytes} {len(document.tokens)}".encode())
                tokens.update(document.tokens.tobytes())
            for window in corpus.windows:
                tokens.update(window.tokens.tobytes())
        return model_digest(self.context.model), tokens.hexdigest(), tokenizer_hash(self.context.tokenizer)


def _copy(argument: Any) -> Any:
    if isinstance(argument, torch.Tensor):
        return argument.clone()
    if isinstance(argument, np.ndarray):
        return argument.copy()
    if isinstance(argument, TokenBatch | TokenPredictions):
        return type(argument)(**{field.name: _copy(getattr(argument, field.name)) for field in fields(argument)})
    return argument
