"""The probe of similarity: a checkpoint's states and predictions beside those of another on the same tokens.

Shapes: N tokens, M of them with whole predictions, L layers, D width of a layer, V tokens of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from lmsat_plugin.errors import DivergedError
from lmsat_plugin.lazy import torch
from lmsat_plugin.measurement.sequences import draw_sequences, longest_sequence
from lmsat_plugin.measurement.shared_rows import shared_rows
from lmsat_plugin.probe import Measurement, Need, NoReferenceError, Probe, ProbeContext, TokenBatch
from lmsat_plugin.probes.similarity.alignment import align, jensen_shannon
from lmsat_plugin.settings import Settings

_SEQUENCE = 128
_EVERY = 4
"""Of so many tokens one has its whole prediction kept."""
_FEWEST = 4
_OF_STATES = ("cka_last", "cka_mean", "principal_angle_last")
_OF_PREDICTIONS = ("agreement", "jensen_shannon")


class SimilaritySettings(Settings):
    """The settings of lmsat-similarity."""

    reference: Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)] = "previous"
    """The checkpoint to compare with: in a sweep ``previous``, ``next``, ``first`` or ``last`` of the same run, another
    name in it, or another model or run, whose checkpoint of the same step it is; or a folder, or a name on the Hub."""
    similarity_tokens: Annotated[int, Field(ge=_FEWEST)] = 2048
    """Tokens whose states and predictions are compared."""


class SimilarityProbe(Probe[SimilaritySettings]):
    """How alike a checkpoint and a reference are: their states by layer, and what they predict.

    Both models run over the same sequences of at most 128 tokens, drawn over all of the text in an order that is always
    the same. In a sweep the reference's states and predictions are those that its own measurement has kept.

    Metrics: ``cka_last`` and ``cka_mean``, linear centred kernel alignment, debiased (Kornblith et al. 2019,
    1905.00414; Nguyen et al. 2021, 2010.15327), of the last layer after the final norm, and the mean over all layers,
    embeddings among them; 1 for states that are equal up to a rotation and a scale. ``principal_angle_last``, degrees:
    the mean angle between the subspaces of the ten greatest singular values of the last layer's centred states, over
    tokens; see `align`. ``agreement``: the share of tokens for which both predict the same next token.
    ``jensen_shannon``: the mean over every fourth token of the Jensen-Shannon distance of the two predictions, the root
    of the divergence in bits, from 0 to 1.
    Arrays [L]: ``cka_by_layer``, ``principal_angle_by_layer``.

    All are null without a reference, or with one of another tokenizer; those of states with one of other widths.
    """

    name = "similarity"
    is_expensive = True
    cost = "a pass over 2,048 tokens; one more where the reference was not measured before"
    needs = Need.PASS_AGAIN | Need.REFERENCE
    settings_type = SimilaritySettings

    def start(self, context: ProbeContext) -> None:
        """Draw the sequences."""
        assert context.corpus is not None
        self.context, length = context, longest_sequence(context, _SEQUENCE)
        sequences = draw_sequences(context.corpus, length, self.settings.similarity_tokens)
        # Each by its number, so that a token's row does not depend on batches.
        self.windows = [replace(window, document=number) for number, window in enumerate(sequences)]
        self.first_S = np.cumsum([0, *(window.scored for window in sequences)])

    def finish(self) -> Measurement:
        """Run the sequences, and compare. Each process compares its share of the layers."""
        context, settings = self.context, self.settings
        assert context.beside is not None
        beside = context.beside(settings.reference)
        name, tokens = f"{self.name} {settings.similarity_tokens}", int(self.first_S[-1])
        details: dict[str, Any] = {"tokens": tokens}
        if tokens < _FEWEST:
            return self._nothing(f"the text has {tokens} tokens, and a comparison needs {_FEWEST}", details)
        own = beside.own(name, self._run)
        try:
            other = beside.other(name, self._run)
        except NoReferenceError as error:
            return self._nothing(str(error), details)
        details["reference"] = beside.note()
        if own["log_probs"].shape != other["log_probs"].shape:
            return self._nothing(f"the reference {beside.note()['name']} has another vocabulary", details)
        metrics = {
            "agreement": float((own["top"] == other["top"]).double().mean()),
            "jensen_shannon": jensen_shannon(own["log_probs"], other["log_probs"]),
        }
        if reason := _why_not_comparable(own, other):
            return Measurement.with_gaps(metrics, dict.fromkeys(_OF_STATES, reason), {}, details)
        cka_L, angle_L = self._compare_layers(own, other).T
        flat = "all states of the last layer are the same"
        values = {"cka_last": cka_L[-1], "cka_mean": _mean(cka_L), "principal_angle_last": angle_L[-1]}
        reasons = {name: flat for name, value in values.items() if math.isnan(value)}
        metrics |= {name: float(value) for name, value in values.items()}
        arrays = {"cka_by_layer": cka_L, "principal_angle_by_layer": angle_L}
        return Measurement.with_gaps(metrics, reasons, arrays, details)

    def _nothing(self, reason: str, details: Mapping[str, Any]) -> Measurement:
        return Measurement.with_gaps({}, dict.fromkeys((*_OF_STATES, *_OF_PREDICTIONS), reason), {}, details)

    def _run(self, context: ProbeContext) -> dict[str, torch.Tensor]:
        """Return a model's states by layer, its likeliest next tokens, and every fourth prediction, on all tokens."""
        assert context.pass_again is not None
        n = int(self.first_S[-1])
        kept: dict[str, torch.Tensor] = {}

        def place(name: str, like: torch.Tensor, tokens: int = n) -> torch.Tensor:
            if name not in kept:
                kept[name] = torch.zeros(tokens, *like.shape[1:], dtype=like.dtype)
            return kept[name]

        def rows(batch: TokenBatch) -> torch.Tensor:
            documents, positions = batch.documents_N.cpu().numpy(), batch.positions_N.cpu().numpy()
            before = np.array([len(window) - window.scored for window in self.windows])
            return torch.from_numpy(self.first_S[documents] + positions - before[documents])

        def see_layer(layer: int, states_ND: torch.Tensor, batch: TokenBatch) -> None:
            place(f"states {layer}", states_ND)[rows(batch)] = states_ND.cpu()

        def see_final(final_ND: torch.Tensor, batch: TokenBatch) -> None:
            rows_N, head = rows(batch), context.head
            for own_N, part_ND in zip(rows_N.split(256), final_ND.split(256), strict=True):
                logits = part_ND if head is None else head.logits(head.prepare(part_ND), 0, context.vocab_rows)
                log_probs = logits[:, : context.vocab_rows].log_softmax(
                    -1, dtype=torch.promote_types(logits.dtype, torch.float32)
                )
                top_N = log_probs.argmax(-1).int().cpu()
                place("top", top_N)[own_N] = top_N
                is_whole = own_N % _EVERY == 0
                whole = log_probs[is_whole.to(log_probs.device)].cpu()
                place("log_probs", whole, -(-n // _EVERY))[own_N[is_whole] // _EVERY] = whole

        on_layer = see_layer if context.layer_widths else None
        context.pass_again(self.windows, start=kept.clear, on_layer=on_layer, on_final=see_final)
        if not torch.isfinite(kept["log_probs"]).any(-1).all():
            raise DivergedError("the predictions are not finite")
        return kept

    def _compare_layers(self, own: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Return CKA and angle of each layer, [L, 2]."""

        def compute(layer: int) -> tuple[float, ...]:
            states = (tensors[f"states {layer}"].to(self.context.device) for tensors in (own, other))
            return astuple(align(*states))

        return shared_rows(self.context, (len(_layers(own)), 2), compute)


def _layers(tensors: Mapping[str, torch.Tensor]) -> list[tuple[int, ...]]:
    """Return the shape of each layer's states."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name.startswith("states ")}
    return [shapes[f"states {layer}"] for layer in range(len(shapes))]


def _why_not_comparable(own: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> str | None:
    """Return why the states of two models are not compared layer by layer; None where they can be."""
    first, second = _layers(own), _layers(other)
    if not first or not second:
        return "a model does not give its hidden states"
    if first != second:
        described = [f"{len(each) - 1} layers of width {each[-1][1]}" for each in (first, second)]
        return f"the model has {described[0]} and the reference {described[1]}: compare models of one shape"
    return None


def _mean(values_L: np.ndarray) -> float:
    return float(np.nanmean(values_L)) if not np.isnan(values_L).all() else math.nan
