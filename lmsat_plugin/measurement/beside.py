"""One checkpoint beside another: tensors computed of both, each once, and the other's model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lmsat_plugin.errors import BrokenDeviceError, LmsatError, PassingError, first_sentence
from lmsat_plugin.lazy import torch, without_gradients
from lmsat_plugin.measurement.execution import Processes
from lmsat_plugin.measurement.references import Reference, References
from lmsat_plugin.model.memory import is_out_of_memory
from lmsat_plugin.probe import NoReferenceError, ProbeContext
from lmsat_plugin.text.tokenization import are_alike

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lmsat_plugin.probe.context import Computation


@dataclass(kw_only=True)
class BesideReference:
    """A measured checkpoint beside its reference: a `Beside`."""

    context: ProbeContext
    reference: Reference
    references: References
    open: Callable[[Any], ProbeContext]
    """Makes the context of another model, a `LoadedModel`, on the same corpus."""
    processes: Processes
    code_of: Callable[[Computation], Any] = lambda compute: None
    """Returns what identifies a computation's code, as far as the version of lmsat does not."""
    computed: dict[tuple[str | None, str], Mapping[str, torch.Tensor]] = field(default_factory=dict)
    """What was computed of the measured checkpoint and of its reference, by identity and name."""
    _opened: dict[str, ProbeContext] = field(default_factory=dict)

    def own(self, name: str, compute: Computation, *, of_text: bool = True) -> Mapping[str, torch.Tensor]:
        """Return what ``compute`` returns for the measured checkpoint, and keep it where others will ask for it."""
        key = (None, name)
        if key not in self.computed:
            self.computed[key] = tensors = self._compute(compute, self.context)
            kept, identity = self.references.kept, self.references.identity
            if kept is not None and identity is not None and self.processes.rank == 0:
                kept.write(identity, name, self._key(compute, of_text=of_text), tensors)
        return self.computed[key]

    def other(
        self, name: str, compute: Computation, *, back: int = 1, of_text: bool = True
    ) -> Mapping[str, torch.Tensor]:
        """Return what ``compute`` returns, or has returned, for the reference, or for the reference's own."""
        reference = self._back(back)
        if reference.identity is not None and reference.identity == self.references.identity:
            return self.own(name, compute, of_text=of_text)
        key = (reference.name, name)
        if key not in self.computed:
            kept = self._read(reference, name, self._key(compute, of_text=of_text))
            with _named(reference):
                self.computed[key] = kept or self._compute(compute, self._open(reference))
        return self.computed[key]

    def model(self) -> PreTrainedModel:
        """Return the reference's model."""
        with _named(self.reference):
            return self._open(self._back(1)).model

    def note(self) -> dict[str, Any]:
        """Return the reference's name, where it is, and what identifies its weights."""
        reference = self.reference
        noted = {"name": reference.name, "pretrained": reference.place, "weights": reference.weights}
        return {key: value for key, value in noted.items() if value is not None}

    def _back(self, back: int) -> Reference:
        reference: Reference | None = self.reference
        for _ in range(back - 1):
            reference = reference and reference.before
        if reference is None:
            raise NoReferenceError(f"no checkpoint is known that comes before the reference {self.reference.name}")
        if reference.reason is not None:
            raise NoReferenceError(reference.reason)
        return reference

    def _key(self, compute: Computation, *, of_text: bool) -> str:
        """Return what tensors depend on besides the checkpoint and their name: the text, and the code of a plugin."""
        return json.dumps([self.code_of(compute), self._text if of_text else ""])

    @cached_property
    def _text(self) -> str:
        """What identifies the measured text, as tokens in windows."""
        corpus = self.context.corpus
        assert corpus is not None
        return json.dumps([corpus.provenance, corpus.prefix, corpus.prefix_policy, corpus.window], default=str)

    def _read(self, reference: Reference, name: str, text: str) -> Mapping[str, torch.Tensor] | None:
        kept = self.references.kept
        tensors = None if kept is None else kept.read(reference.identity, name, text)
        # All read it, or all compute.
        return tensors if all(self.processes.gather(tensors is not None)) else None

    @without_gradients
    def _compute(self, compute: Computation, context: ProbeContext) -> Mapping[str, torch.Tensor]:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in compute(context).items()}

    def _open(self, reference: Reference) -> ProbeContext:
        if reference.name not in self._opened:
            loaded = self.processes.together(lambda: self._load(reference))
            self._opened[reference.name] = self.open(loaded)
        return self._opened[reference.name]

    def _load(self, reference: Reference) -> Any:
        if self.references.load is None:
            raise LmsatError("this model loads no second checkpoint: use --model lmsat of lm_eval, or `lmsat sweep`")
        if reference.source is None:
            # Other workers may have kept newer ones instead; another try fetches it.
            message = f"what was kept of {reference.name} is there no more"
            raise PassingError(f"{message}: start again", source="what is kept of checkpoints")
        try:
            loaded = self.references.load(reference)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            what = f"memory does not suffice for a second model ({first_sentence(error)})"
            raise LmsatError(f"{what}: use a larger device") from error
        if not are_alike(loaded.tokenizer, self.context.tokenizer):
            raise LmsatError("it has another tokenizer; compare checkpoints of one tokenizer")
        return loaded


@contextmanager
def _named(reference: Reference) -> Iterator[None]:
    """Raise `NoReferenceError` that names the reference for whatever is wrong with it."""
    try:
        yield
    except (PassingError, BrokenDeviceError, NoReferenceError):
        raise
    except LmsatError as error:
        raise NoReferenceError(f"the reference {reference.name} cannot be used: {error}") from error
