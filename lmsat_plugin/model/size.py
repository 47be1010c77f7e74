"""How large a model is, counted from its own modules: parameters by part, and operations by part.

Names as in Kaplan et al. 2020, Table 1: d_model, n_layer, d_attn (all heads together), d_ff, n_ctx.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from transformers import PreTrainedModel

_POSITIONS = ("pos", "wpe")
_ATTENTION = ("attn", "attention")
_MLP = ("mlp", "ffn", "feed_forward", "moe", "fc1", "fc2")
_PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "wo")
"""What architectures call the matrix after the attention."""


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
        """All of them."""
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
class Shape:
    """The dimensions that Kaplan's formulas speak of. Where layers differ, ``d_attn`` and ``d_ff`` are means."""

    d_model: int
    n_layer: int
    d_attn: float
    d_ff: float
    mlp_matrices: int
    """2, or 3 for a gated feed-forward layer."""

    @property
    def kaplan_parameters(self) -> float:
        """N ≈ 2 d_model n_layer (2 d_attn + d_ff) (Table 1); of gated layers, the third matrix is added."""
        return self.d_model * self.n_layer * (4 * self.d_attn + self.mlp_matrices * self.d_ff)


@dataclass(frozen=True)
class ForwardFlops:
    """Floating-point operations for one token of a forward pass, by the parts of Kaplan et al. 2020, Table 1.

    A matrix costs two for each entry. Biases, norms and activation functions cost nothing here. ``mask`` is Kaplan's
    2 n_layer n_ctx d_attn: the products of the attention with half the context, which is what a token of a causal
    model has on average; many implementations compute all of it, which is twice that.
    """

    embed: int
    attention_qkv: int
    attention_mask: int
    attention_project: int
    feed_forward: int
    de_embed: int
    other: int
    """Matrices besides, such as those between an embedding and blocks of another width."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, field.name) for field in fields(self))


def count_parameters(model: PreTrainedModel) -> ParameterCount:
    """Return a causal model's parameters by part. The model may be on the meta device."""
    counts = dict.fromkeys((field.name for field in fields(ParameterCount)), 0)
    for _, parameter, part in _parameters(model):
        counts[part] += parameter.numel()
    return ParameterCount(**counts)


def has_tied_head(model: PreTrainedModel) -> bool:
    """Return whether the LM head's matrix is the embedding itself, also on the meta device."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def shape_of(model: PreTrainedModel) -> Shape:
    """Return the dimensions of a transformer, from the shapes of its matrices.

    Raises `LmsatError` for layers of other kinds, and for mixtures of experts.
    """
    config = model.config.get_text_config()
    matrices = _matrices(model)
    project = sum(matrices["attention_project"].values())
    # The last matrix of each feed-forward layer leads back from d_ff; those before lead to it, once or twice.
    back = sum({name.rsplit(".", 2)[0]: size for name, size in matrices["mlp"].items()}.values())
    if not project or not back:
        raise LmsatError(
            f"{type(model).__name__} has no attention and feed-forward layers of known names, on which Kaplan's "
            "formulas rest: take the numbers of parameters alone"
        )
    width, layers = int(config.hidden_size), int(config.num_hidden_layers)
    return Shape(
        d_model=width,
        n_layer=layers,
        d_attn=project / (layers * width),
        d_ff=back / (layers * width),
        mlp_matrices=round(sum(matrices["mlp"].values()) / back),
    )


def forward_flops(model: PreTrainedModel, n_ctx: int) -> ForwardFlops:
    """Return the operations for a token of a context of ``n_ctx`` tokens. Raises as `shape_of`."""
    shape, matrices = shape_of(model), _matrices(model)

    def of(part: str) -> int:
        return 2 * sum(matrices[part].values())

    return ForwardFlops(
        embed=4 * shape.d_model,
        attention_qkv=of("attention"),
        attention_mask=round(2 * shape.n_layer * n_ctx * shape.d_attn),
        attention_project=of("attention_project"),
        feed_forward=of("mlp"),
        de_embed=2 * model.get_output_embeddings().weight.numel(),
        other=of("other"),
    )


def _matrices(model: PreTrainedModel) -> dict[str, dict[str, int]]:
    """Return the entries of each matrix by part and name, without embeddings and head."""
    found: dict[str, dict[str, int]] = {
        part: {} for part in ("attention", "attention_project", "mlp", "other")
    }
    for name, parameter, part in _parameters(model):
        if parameter.ndim > 2 or "expert" in name:
            raise LmsatError(
                f"{type(model).__name__} has {name}, no matrix that each token is multiplied with once, so that "
                "Kaplan's formulas do not hold: take the numbers of parameters alone"
            )
        if part == "attention" and name.split(".")[-2] in _PROJECTIONS:
            part = "attention_project"
        if parameter.ndim == 2 and part in found:
            found[part][name] = parameter.numel()
    return found


def _parameters(model: PreTrainedModel) -> Iterator[tuple[str, nn.Parameter, str]]:
    """Yield each parameter once with its name and its part, a field of `ParameterCount`."""
    from torch import nn

    embedding = getattr(model.get_input_embeddings(), "weight", None)
    head = getattr(model.get_output_embeddings(), "weight", None)
    seen = set()
    for path, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
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
                part = _part_of_block(path)
            yield name, parameter, part


def _part_of_block(path: str) -> str:
    for step in reversed(path.split(".")):
        for part, words in (("mlp", _MLP), ("attention", _ATTENTION)):
            if any(word in step for word in words):
                return part
    return "other"
