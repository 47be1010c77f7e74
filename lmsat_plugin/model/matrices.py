"""The weight matrices of a model: of linear layers, experts, embeddings and the LM head, each by kind and layer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.lazy import torch

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One weight matrix W of a model, which maps x to W x."""

    name: str
    """The parameter's, with the expert's number where it holds several."""
    kind: str
    """What it is within its layer, such as ``self_attn.q_proj``."""
    layer: int | None
    """None for what is in no layer, such as the embedding."""
    weight_OI: torch.Tensor
    """A view of the parameter: rows are outputs, columns are inputs."""
    is_linear: bool
    """Whether it is that of a layer, and neither an embedding nor the LM head."""


def matrices_of(model: PreTrainedModel) -> list[Matrix]:
    """Return the weight matrices of a model, each once, in the order of its modules.

    They are the two-dimensional parameters called ``weight``, and of stacked experts each one's. Vectors, such as those
    of norms, and the filters of short convolutions are none.

    Raises `LmsatError` for a quantised model, and where a process holds parts of matrices only, or none in memory.
    """
    if getattr(model.config, "quantization_config", None) is not None:
        raise LmsatError("the model is quantised: measure the weights that it was quantised from")
    outside = {id(module.weight) for module in _ends(model)}
    seen: set[int] = set()
    found: list[Matrix] = []
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.is_floating_point():
                continue
            seen.add(id(parameter))
            stacked = parameter.ndim == 3 and min(parameter.shape[1:]) > 1
            if not stacked and not (parameter.ndim == 2 and name == "weight"):
                continue
            if hasattr(parameter, "full_tensor") or parameter.is_meta:
                raise LmsatError(f"{prefix}.{name} is not in this process' memory as a whole: run without tp_plan")
            is_linear = id(parameter) not in outside and not isinstance(module, torch.nn.Embedding)
            own = prefix if name == "weight" else f"{prefix}.{name}"
            for label, weight_OI in _views(own, module, parameter.detach()):
                layer, kind = _place(label)
                found.append(Matrix(name=label, kind=kind, layer=layer, weight_OI=weight_OI, is_linear=is_linear))
    return found


def _ends(model: PreTrainedModel) -> Iterator[nn.Module]:
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if module is not None and hasattr(module, "weight"):
            yield module


def _views(name: str, module: nn.Module, weight: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a parameter's matrices with their names, outputs first."""
    # GPT-2's Conv1D, and some stacks of experts, have the inputs first.
    inputs_first = type(module).__name__ == "Conv1D" or getattr(module, "is_transposed", False)
    if weight.ndim == 2:
        yield name, weight.T if inputs_first else weight
        return
    for expert, own in enumerate(weight):
        yield f"{name}.{expert}", own.T if inputs_first else own


def _place(name: str) -> tuple[int | None, str]:
    """Return a matrix' layer and kind, by its name: the first number is the layer's, later ones are experts'."""
    match = _LAYER.search(name)
    if match is None:
        return None, name.rpartition(".")[2]
    return int(match[1]), re.sub(r"\.\d+(?=\.|$)", "", name[match.end() :])
