"""How large a model is: which part each parameter belongs to, and the dimensions in Kaplan's formulas.

Names as in Kaplan et al. 2020, Table 1: d_model, n_layer, d_attn (all heads together), d_ff.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from torch import nn

from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_POSITIONS = ("pos", "wpe")
_ATTENTION = ("attn", "attention")
_MLP = ("mlp", "ffn", "feed_forward", "moe", "fc1", "fc2")
PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "wo")
"""Names of the matrix after the attention."""


@dataclass(frozen=True)
class ParameterCount:
    """A model's parameters by part; each tensor counts once, a tied head as the embedding."""

    token_embedding: int
    position_embedding: int
    attention: int
    mlp: int
    norms: int
    head: int
    """The matrix alone; its bias, where it has one, is among the others."""
    other: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def non_embedding(self) -> int:
        """Without embeddings of tokens and positions, and without the head (Kaplan et al. 2020, Sec. 2.1)."""
        return self.total - self.token_embedding - self.position_embedding - self.head

    @property
    def non_embedding_pythia(self) -> int:
        """Without the embedding of tokens and the head (Biderman et al. 2023, Table 1): learned positions count."""
        return self.total - self.token_embedding - self.head


@dataclass(frozen=True)
class TransformerShape:
    """The dimensions in Kaplan's formulas. Where layers differ, ``d_attn`` and ``d_ff`` are means."""

    d_model: int
    n_layer: int
    d_attn: float
    d_ff: float
    mlp_matrices: int
    """2, or 3 for a gated feed-forward layer."""

    @property
    def kaplan_parameters(self) -> float:
        """N ≈ 2 d_model n_layer (2 d_attn + d_ff) (Table 1); for gated layers, the third matrix is added."""
        return self.d_model * self.n_layer * (4 * self.d_attn + self.mlp_matrices * self.d_ff)


def count_parameters(model: PreTrainedModel) -> ParameterCount:
    """Return a causal model's parameters by part. The model may be on the meta device.

    Of a multimodal model they are the language model's.
    """
    counts = dict.fromkeys((field.name for field in fields(ParameterCount)), 0)
    for _, parameter, part in _parameters(model):
        counts[part] += parameter.numel()
    return ParameterCount(**counts)


def size_of(model: PreTrainedModel) -> dict[str, int]:
    """Return a model's ``n_params``, ``n_params_non_embedding``, ``hidden_size`` and ``vocab_size``.

    A shared tensor counts once, and of a multimodal model only the language model does. Embeddings are those of
    tokens and of learned positions, and the LM head (the convention of Kaplan et al. 2020, Sec. 2.1); ``vocab_size``
    is the number of rows, padding included.
    """
    counts = count_parameters(model)
    # Several entries of a quantised tensor share one element; transformers counts the entries.
    total = model.num_parameters() - (sum(parameter.numel() for parameter in model.parameters()) - counts.total)
    return {
        "n_params": total,
        "n_params_non_embedding": total - (counts.total - counts.non_embedding),
        "hidden_size": int(model.config.get_text_config().hidden_size),
        "vocab_size": model.get_input_embeddings().weight.shape[0],
    }


def shape_of(model: PreTrainedModel) -> TransformerShape:
    """Return the dimensions of a transformer, from the shapes of its matrices.

    Raises `LmsatError` for layers of other kinds, and for mixtures of experts.
    """
    project = 0
    mlp: dict[str, int] = {}
    for name, parameter, part in _parameters(model):
        if parameter.ndim > 2 or "expert" in name:
            raise LmsatError(
                f"{type(model).__name__} has {name}, which is not a matrix that multiplies each token once, so that "
                "Kaplan's formulas do not hold: take the counted numbers"
            )
        if parameter.ndim == 2 and part == "mlp":
            mlp[name] = parameter.numel()
        elif parameter.ndim == 2 and part == "attention" and name.split(".")[-2] in PROJECTIONS:
            project += parameter.numel()
    # The last matrix of each feed-forward layer leads back from d_ff; those before lead to it, once or twice.
    back = sum({name.rsplit(".", 2)[0]: size for name, size in mlp.items()}.values())
    if not project or not back:
        raise LmsatError(
            f"{type(model).__name__} has no attention and feed-forward layers of known names, on which Kaplan's "
            "formulas rest: take the counted numbers"
        )
    config = model.config.get_text_config()
    width, layers = int(config.hidden_size), int(config.num_hidden_layers)
    return TransformerShape(
        d_model=width,
        n_layer=layers,
        d_attn=project / (layers * width),
        d_ff=back / (layers * width),
        mlp_matrices=round(sum(mlp.values()) / back),
    )


def _parameters(model: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter, str]]:
    """Yield each parameter once with its name and its part, a field of `ParameterCount`."""
    embedding = getattr(model.get_input_embeddings(), "weight", None)
    head = getattr(model.get_output_embeddings(), "weight", None)
    seen = _outside_language_model(model) | _of_adapters(model)
    for path, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            path = path.removesuffix(".base_layer")
            name = f"{path}.{own}"
            if parameter is embedding:
                part = "token_embedding"
            elif parameter is head:
                part = "head"
            elif isinstance(module, nn.Embedding):
                positions = any(word in path.rpartition(".")[2] for word in _POSITIONS)
                part = "position_embedding" if positions else "token_embedding"
            elif "norm" in type(module).__name__.lower():
                part = "norms"
            else:
                part = part_of_block(path)
            yield name, parameter, part


def _outside_language_model(model: PreTrainedModel) -> set[int]:
    """Return the ids of the parameters of a multimodal model that serve other inputs than text."""
    if model.config.get_text_config() is model.config:
        return set()
    parts = [part for part in (model.get_decoder(), model.get_output_embeddings()) if part is not None]
    inside = {id(parameter) for part in parts for parameter in part.parameters()}
    return {id(parameter) for parameter in model.parameters()} - inside


def _of_adapters(model: PreTrainedModel) -> set[int]:
    """Return the ids of what PEFT puts beside a model's own layers, and of layers that it has put others for.

    A model with an adapter counts as the one in whose weights it is merged.
    """
    ids: set[int] = set()
    for module in model.modules():
        if hasattr(module, "get_base_layer") and hasattr(module, "adapter_layer_names"):
            own = {id(parameter) for parameter in module.get_base_layer().parameters()}
            ids |= {id(parameter) for parameter in module.parameters()} - own
        elif hasattr(module, "original_module") and hasattr(module, "modules_to_save"):
            ids |= {id(parameter) for parameter in module.original_module.parameters()}
    return ids


def part_of_block(path: str) -> str:
    """Return ``mlp``, ``attention`` or ``other`` for a module of this name."""
    for step in reversed(path.split(".")):
        for part, words in (("mlp", _MLP), ("attention", _ATTENTION)):
            if any(word in step for word in words):
                return part
    return "other"
