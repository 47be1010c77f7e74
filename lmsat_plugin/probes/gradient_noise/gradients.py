"""The gradients of sequences, one at a time: the norm and a sketch of each, and the sum of all.

Shapes: K sequences, G groups of them, X entries of a sketch, E entries of a gradient.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.packing import without_packing
from lmsat_plugin.model.spectrum import in_float64
from lmsat_plugin.text.windows import Window

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

# Kinds of attention that take no float32.
_HALVES_ALONE = ("flash_attention_2", "flash_attention_3")
# A prime, so that no column of a matrix falls into few entries.
SKETCH = 262_147
_PIECE = 16 * SKETCH


@contextmanager
def differentiable(model: PreTrainedModel) -> Iterator[list[nn.Parameter]]:
    """Prepare a model for gradients in float32 or better, without dropout, and yield its parameters, each once.

    Frozen parameters are among them, quantised ones are not. Afterwards, also after an error, the model is as before:
    the numbers of half types (on a CPU their tensors themselves), flags, modes, gradients, the kind of attention.

    Raises `LmsatError` if no parameter can have a gradient, or if processes hold parts of them.
    """
    trainable = (*_halves(), torch.float32, torch.float64)
    parameters = [parameter for parameter in model.parameters() if parameter.dtype in trainable]
    if not parameters:
        raise LmsatError(
            "no parameter of the model is of floating point, so that none has a gradient: load it unquantised"
        )
    if any(hasattr(parameter, "full_tensor") for parameter in parameters):
        raise LmsatError(
            "each process holds a part of the model, whose gradients have no norm there: run without tp_plan"
        )
    halves = [t for t in (*parameters, *model.buffers()) if t.dtype in _halves()]
    attention = getattr(model.config, "_attn_implementation", None)
    states = [(parameter, parameter.requires_grad, parameter.grad) for parameter in parameters]
    modes = [(module, module.training) for module in model.modules()]
    stored: list[tuple[torch.Tensor, torch.Tensor, torch.device]] = []
    try:
        model.eval()
        for parameter in parameters:
            parameter.grad = None
        for tensor in halves:
            # In memory that is not a GPU's, which holds them in float32 meanwhile.
            stored.append((tensor, tensor.data.cpu(), tensor.device))
            tensor.data = tensor.data.float()
        if halves and attention in _HALVES_ALONE:
            model.set_attn_implementation("sdpa")
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield parameters
    finally:
        for parameter in parameters:
            parameter.grad = None
        for tensor, data, device in stored:
            tensor.data = data.to(device)
        if halves and attention in _HALVES_ALONE:
            model.set_attn_implementation(attention)
        for parameter, required, gradient in states:
            parameter.requires_grad_(required)
            parameter.grad = gradient
        for module, training in modes:
            module.training = training


class GradientSum:
    """The sum of gradients, taken from the parameters during backward passes, one parameter at a time.

    The parameters' ``grad`` stays empty. `close` removes the hooks.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], device: torch.device) -> None:
        """Start with a sum of zero; norms and sketches are float64, on ``device``."""
        self._sums = [torch.zeros_like(parameter) for parameter in parameters]
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(2, (_PIECE,), generator=generator, dtype=torch.int8) * 2 - 1
        # In the type of the gradients: products of two types take several times as long.
        self._signs = {parameter.device: signs.to(parameter.device, torch.float32) for parameter in parameters}
        # The backward pass has a thread for each GPU.
        self._lock = threading.Lock()
        self._shifts = [
            torch.randint(SKETCH, (-(-parameter.numel() // _PIECE),), generator=generator).tolist()
            for parameter in parameters
        ]
        self._device = device
        self._begin()
        self._handles = [
            parameter.register_post_accumulate_grad_hook(self._taker(index))
            for index, parameter in enumerate(parameters)
        ]

    def _begin(self) -> None:
        self._squared = torch.zeros((), dtype=torch.float64, device=self._device)
        self._sketch_X = torch.zeros(SKETCH, dtype=torch.float64, device=self._device)

    def _taker(self, index: int) -> Callable[[torch.Tensor], None]:
        def take(parameter: torch.Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            self._sums[index] += gradient
            with self._lock:
                self._squared += _squared_norm(gradient).to(self._device)
                self._sketch(gradient, self._shifts[index])

        return take

    def _sketch(self, gradient: torch.Tensor, shifts: Sequence[int]) -> None:
        signs = self._signs[gradient.device]
        for piece_E, shift in zip(gradient.flatten().split(_PIECE), shifts, strict=True):
            whole, rest = divmod(len(piece_E), SKETCH)
            signed_E = piece_E * signs[: len(piece_E)]
            if whole:
                rows = signed_E[: whole * SKETCH].view(whole, SKETCH)
                self._sketch_X += in_float64(rows.sum(0).roll(shift)).to(self._device)
            start = shift % (SKETCH - rest)
            self._sketch_X[start : start + rest] += in_float64(signed_E[whole * SKETCH :]).to(self._device)

    def add(self, loss: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add a loss' gradient; return its squared norm, [], and its sketch, [X], both float64.

        The sketch is linear in the gradient: its entries get random signs and are added up in 262,147 bins (a count
        sketch, Charikar et al. 2002). The product of two sketches has the product of the gradients as its mean, with a
        standard deviation of about 0.002 of the product of their norms.
        """
        self._begin()
        loss.backward()
        return self._squared, self._sketch_X

    def squared_norm(self, synchronise: bool) -> float:
        """Return the squared norm of the sum, over all processes if ``synchronise``. Call it once."""
        total = 0.0
        for gradient in self._sums:
            if synchronise:
                torch.distributed.all_reduce(gradient)
            total += float(_squared_norm(gradient))
        return total

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()


def _squared_norm(gradient: torch.Tensor) -> torch.Tensor:
    """Return Σ g², the sums of its pieces added in float64."""
    norms = [torch.linalg.vector_norm(piece_E) for piece_E in gradient.flatten().split(_PIECE)]
    return in_float64(torch.stack(norms)).square().sum()


def sequence_loss(model: PreTrainedModel, window: Window, device: torch.device) -> torch.Tensor:
    """Return −Σ ln p over the scored tokens of a window, nats, from logits of float32 or better."""
    tokens = torch.from_numpy(window.tokens).long().to(device)
    with without_packing():
        logits = model(input_ids=tokens[None, :-1], use_cache=False).logits[0, -window.scored :]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.nn.functional.cross_entropy(logits, tokens[-window.scored :].to(logits.device), reduction="sum")


def _halves() -> tuple[torch.dtype, torch.dtype]:
    return torch.float16, torch.bfloat16
