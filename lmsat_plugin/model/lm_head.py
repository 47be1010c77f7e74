"""The LM head: the map from final states to logits, with its bias, factors and cap, read from a model.

Shapes: N tokens, D width of the last hidden state, V rows of the head.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmsat_plugin.errors import DivergedError, LmsatError
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.spectrum import decompose, in_float64, multiply_rows, triangle

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Head:
    """The map from the last hidden state to logits: ``cap(scale · (h Wᵀ + b))``.

    ``weight_VD`` may have any float type. Logits are float32, or float64 if an input is float64, and are never
    rounded to a half type on the way.
    """

    weight_VD: torch.Tensor
    bias_V: torch.Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    tied: bool = False
    vocab_rows: int | None = None
    """Rows of the tokenizer's tokens, the others being padding; None if that is not known."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of the logits: float32 or float64."""
        return torch.promote_types(self.weight_VD.dtype, torch.float32)

    @functools.cached_property
    def token_triangle_KD(self) -> torch.Tensor:
        """R of a QR decomposition of the weight without padding, float64: see `triangle`. It is computed once."""
        return triangle(self.weight_VD[: self.vocab_rows])

    @functools.cached_property
    def triangle_KD(self) -> torch.Tensor:
        """R of a QR decomposition of the weight, all its rows, float64. It is computed once."""
        padding_VD = self.weight_VD[len(self.weight_VD) if self.vocab_rows is None else self.vocab_rows :]
        if not len(padding_VD):
            return self.token_triangle_KD
        return triangle(torch.cat([self.token_triangle_KD, in_float64(padding_VD)]))

    @functools.cached_property
    def decomposition(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The weight's singular values [K] and right singular vectors [D, D], float64. They are computed once.

        Raises `DivergedError` for a weight that is not finite.
        """
        if not torch.isfinite(self.triangle_KD).all():
            raise DivergedError("the LM head's weight is not finite")
        return decompose(self.triangle_KD)

    @functools.cached_property
    def rotated_VD(self) -> torch.Tensor:
        """W V, V the right singular vectors, in the type of the logits: the left ones times the singular values."""
        return multiply_rows(self.weight_VD, self.decomposition[1].T, self.dtype)

    def prepare(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """Move hidden states to the head's device, in the type in which `logits` multiplies them."""
        hidden_ND = hidden_ND.to(self.weight_VD.device)
        if self._multiplies_halves(hidden_ND):
            return hidden_ND
        return hidden_ND.to(torch.promote_types(hidden_ND.dtype, self.dtype))

    def _multiplies_halves(self, hidden_ND: torch.Tensor) -> bool:
        # A CUDA kernel multiplies half types exactly and adds in float32, at tensor-core speed.
        is_half = hidden_ND.dtype == self.weight_VD.dtype and hidden_ND.dtype.itemsize == 2
        return _adds_halves_in_float32() and hidden_ND.is_cuda and is_half

    def logits(self, hidden_ND: torch.Tensor, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Return the logits of rows ``start`` to ``stop`` for `prepare`\\ d states, shape [N, stop − start]."""
        weight = self.weight_VD[start:stop]
        if self._multiplies_halves(hidden_ND):
            logits = torch.mm(hidden_ND, weight.T, out_dtype=torch.float32)
        else:
            logits = hidden_ND @ weight.to(hidden_ND.dtype).T
        return self.finish(logits, slice(start, stop))

    def finish(self, logits: torch.Tensor, rows: Any = slice(None), work: torch.Tensor | None = None) -> torch.Tensor:
        """Turn products with these rows into logits: add the bias, scale, cap.

        The products are overwritten, or in their place ``work``, of their shape and type.
        """
        if work is not None and (self.bias_V is not None or self.scale != 1.0):
            logits = work.copy_(logits)
        if self.bias_V is not None:
            logits += self.bias_V[rows].to(logits.dtype)
        if self.scale != 1.0:
            logits *= self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


def head_weight(model: PreTrainedModel) -> torch.Tensor:
    """Return the weight of a model's LM head, shape [V, D]. Raises `LmsatError` for a model without one."""
    weight = _working_weight(model.get_output_embeddings())
    if not isinstance(weight, torch.Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        raise LmsatError(
            f"{type(model).__name__} has no LM head of ordinary weights: "
            "load a causal language model whose head is not quantised"
        )
    if weight.is_meta and hasattr(model.get_output_embeddings(), "_hf_hook"):
        # Offloaded to the CPU's memory or to a disk by a device_map.
        from accelerate.utils import align_module_device

        with align_module_device(model.get_output_embeddings(), execution_device="cpu"):
            return model.get_output_embeddings().weight.detach().clone()
    # Under tensor parallelism each process holds a part.
    return weight.full_tensor().detach() if hasattr(weight, "full_tensor") else weight.detach()


def _working_weight(module: Any) -> Any:
    """Return the weight with which a module works: with what an adapter of PEFT adds to the stored one."""
    layer = getattr(module, "token_adapter", module)
    if not is_adapted(layer) or layer.merged:
        return getattr(module, "weight", None)
    layer = copy.deepcopy(layer)
    layer.merge()
    return getattr(layer.get_base_layer(), "weight", None)


def is_adapted(module: Any) -> bool:
    """Return whether an adapter of PEFT is active in a module, and adds to what it stores."""
    layer = getattr(module, "token_adapter", module)
    return hasattr(layer, "get_base_layer") and bool(layer.active_adapters) and not layer.disable_adapters


def find_head(model: PreTrainedModel) -> Head | None:
    """Return a model's LM head as its modules and configuration describe it; None without ordinary weights."""
    try:
        weight = head_weight(model)
    except LmsatError:
        return None
    module, config = model.get_output_embeddings(), model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    scale *= getattr(config, "lm_head_multiplier", None) or 1.0  # Falcon-H1
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
    bias = getattr(module, "bias", None)
    return Head(
        weight_VD=weight,
        bias_V=None if bias is None else bias.detach(),
        scale=float(scale),
        softcap=getattr(config, "final_logit_softcapping", None),  # Gemma
        tied=is_tied(model),
    )


def is_tied(model: PreTrainedModel) -> bool:
    """Return whether the LM head and the input embeddings are one tensor, also on the meta device.

    They are not where an adapter is on one of them.
    """
    parts = model.get_input_embeddings(), model.get_output_embeddings()
    if any(map(is_adapted, parts)):
        return False
    inputs, outputs = (getattr(part, "weight", None) for part in parts)
    if inputs is None or outputs is None:
        return False
    return inputs is outputs or inputs.data_ptr() == outputs.data_ptr() != 0


@functools.cache
def _adds_halves_in_float32() -> bool:
    """Return whether it is PyTorch 2.8 or later, and none of its builds for AMD's GPUs."""
    return tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 8) and torch.version.cuda is not None
