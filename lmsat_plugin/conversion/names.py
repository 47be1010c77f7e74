"""Which tensor of a checkpoint is which weight of an architecture: by its name, without the prefixes of wrappers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.series.checkpoint import warn_once

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# What torch.compile, FSDP and activation checkpointing put into names, which no architecture does.
_WITHIN = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
WRAPPERS = (*_WITHIN, "module", "model")
"""What wrappers put before names, DDP's, DeepSpeed's and a LightningModule's among them."""
_INSIDE = re.compile(rf"(?<=\.)(?:{'|'.join(_WITHIN)})\.")
_DEEPEST = 4
# What is computed anew, and was stored by earlier versions of transformers or by TransformerEngine.
_NOT_WEIGHTS = re.compile(r"(^|\.)(rotary_emb\.(\w+_)?inv_freq|masked_bias|_extra_state)$")
_MASK = re.compile(r"(^|\.)(attn|attention)\.bias$")

Rename = Sequence[tuple[str, str]]
"""Regular expressions, each with what takes the place of each of its matches."""


@dataclass(frozen=True)
class FittedNames:
    """Which of a checkpoint's tensors are the weights of an architecture."""

    sources: dict[str, str]
    """From each weight's name in the architecture to the tensor's in the checkpoint."""
    stripped: str = ""
    """The prefix that all names had, such as ``_orig_mod.model.``."""
    unread: list[str] = field(default_factory=list)
    """The tensors that are no weights, such as an optimiser's states."""


def fit_names(
    tensors: Mapping[str, torch.Tensor], model: PreTrainedModel, rename: Rename, *, checkpoint: str, config: str
) -> FittedNames:
    """Return which tensors are a model's weights. ``model`` may be on the meta device.

    Args:
        tensors: The tensors by name; only names and shapes are looked at.
        model: The architecture.
        rename: Applied to the names first, one after another.
        checkpoint: What the checkpoint is called in a sentence.
        config: What the architecture is called in a sentence.

    Raises `LmsatError` where weights are missing, where shapes differ, and where a tensor of the model's own modules
    fits nothing, as with more layers than the configuration says.
    """
    renamed = _unique({name: _rename(name, rename) for name in tensors}, checkpoint)
    best, stripped, expected = -1, "", {}
    for candidate in _known_names(model):
        for prefix in _prefixes(renamed):
            if (count := sum(prefix + name in renamed for name in candidate)) > best:
                best, stripped, expected = count, prefix, candidate
    sources = {name: renamed[stripped + alias] for alias, name in expected.items() if stripped + alias in renamed}
    missing = _missing(model, expected, sources)
    if missing:
        raise LmsatError(_describe(missing, best, renamed, set(sources.values()), checkpoint=checkpoint, config=config))
    shapes = {name: tuple(weight.shape) for name, weight in _all_weights(model).items()}
    for name, source in sources.items():
        if tuple(tensors[source].shape) != shapes[name]:
            raise LmsatError(
                f"{checkpoint} has {source} of shape {tuple(tensors[source].shape)} where {config} says "
                f"{shapes[name]}: give the configuration that the model was trained with"
            )
    _warn_of_rows(sources, config)
    read = set(sources.values())
    unread = {name: source for name, source in renamed.items() if source not in read}
    for name, source in unread.items():
        if name.startswith(stripped) and _is_of_model(name[len(stripped) :], tensors[source], model, expected):
            raise LmsatError(
                f"{checkpoint} has {source}, for which {config} has no place: "
                "give the configuration that the model was trained with"
            )
    return FittedNames(sources, stripped, sorted(unread.values()))


def _warn_of_rows(sources: Mapping[str, str], config: str) -> None:
    """Say that a renaming does not suffice for queries and keys of Meta's rotary embedding, whose shapes all fit."""
    for name, source in sources.items():
        if name.endswith("q_proj.weight") and re.search(r"(^|\.)wq\.weight$", source):
            warn_once(
                f"{source} is taken for {name} of {config}: Meta's and torchtitan's Llama order the rows of wq and wk "
                "otherwise, and a loss of these would be wrong; give their own converter with `convert`",
                config,
            )
            return


def _rename(name: str, rename: Rename) -> str:
    for pattern, replacement in rename:
        name = re.sub(pattern, replacement, name)
    return _INSIDE.sub("", name)


def _unique(renamed: Mapping[str, str], checkpoint: str) -> dict[str, str]:
    """Return the original of each new name. Raises `LmsatError` for two of one."""
    sources: dict[str, str] = {}
    for source, name in renamed.items():
        if (other := sources.setdefault(name, source)) != source:
            raise LmsatError(f"{checkpoint} has {other} and {source}, and `rename` makes both {name}: correct it")
    return sources


def _prefixes(names: Iterable[str]) -> list[str]:
    """Return the prefixes of wrappers that names have, the shortest first."""
    found = {""}
    for name in names:
        prefix = ""
        for part in name.split(".")[:_DEEPEST]:
            if part not in WRAPPERS:
                break
            prefix += f"{part}."
            found.add(prefix)
    return sorted(found, key=lambda prefix: (prefix.count("."), prefix))


def _all_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return an architecture's weights by the names in memory, and by those in files where transformers renames."""
    weights = dict(model.state_dict())
    return {**_as_in_files(model, weights), **weights}


def _as_in_files(model: PreTrainedModel, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    with suppress(ImportError):
        # transformers 5 joins the experts of a layer, and renames some heads.
        from transformers.core_model_loading import revert_weight_conversion

        return dict(revert_weight_conversion(model, dict(weights)))
    return weights


def _known_names(model: PreTrainedModel) -> list[dict[str, str]]:
    """Return the names of weights in checkpoints: each way a mapping to the names under which they are saved."""
    weights = dict(model.state_dict())
    base = f"{model.base_model_prefix}."
    ways = [list(weights), list(_as_in_files(model, weights))]
    plain = [{name: name for name in way} for way in ways]
    # Of a model without its head.
    return [*plain, *({name.removeprefix(base): name for name in way} for way in ways)]


def _missing(model: PreTrainedModel, expected: Mapping[str, str], sources: Mapping[str, str]) -> list[str]:
    """Return the weights that are in no tensor; of tied ones, one has to be there."""
    tied = tied_weights(model)
    optional = {name for name, _ in model.named_buffers()}
    patterns = list(getattr(model, "_keys_to_ignore_on_load_missing", None) or ())

    def is_there(name: str) -> bool:
        partners = {tied.get(name), *(target for target, source in tied.items() if source == name)}
        return bool({name, *partners} & sources.keys())

    return [
        name
        for name in expected.values()
        if not (is_there(name) or name in optional or any(re.search(pattern, name) for pattern in patterns))
    ]


def tied_weights(model: PreTrainedModel) -> dict[str, str]:
    """Return which weights a configuration ties to which."""
    if not getattr(model.config.get_text_config(decoder=True), "tie_word_embeddings", False):
        return {}
    expanded = getattr(model, "get_expanded_tied_weights_keys", None)
    if expanded is not None:
        return dict(expanded(all_submodels=True))
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): f"{name}.weight" for name, module in model.named_modules()}
    return {names[id(outputs)]: names[id(inputs)]} if outputs is not None else {}


def _is_of_model(name: str, tensor: Any, model: PreTrainedModel, expected: Mapping[str, str]) -> bool:
    """Return whether a tensor that fits nothing belongs to a module of the model, and is no buffer or mask."""
    if name.partition(".")[0] not in {known.partition(".")[0] for known in expected}:
        return False
    ignored = [*(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())]
    if any(re.search(pattern, name) for pattern in ignored) or _NOT_WEIGHTS.search(name):
        return False
    return not (name in {buffer for buffer, _ in model.named_buffers()} or (_MASK.search(name) and tensor.ndim == 4))


def _describe(
    missing: Sequence[str], count: int, renamed: Mapping[str, str], fitting: set[str], *, checkpoint: str, config: str
) -> str:
    """Return the sentence about weights that no tensor is."""
    others = [name for name, source in renamed.items() if source not in fitting]
    lacks = (
        f"{count} of the {len(renamed):,} tensors of {checkpoint} fit {config}, and {len(missing):,} of its weights "
        f"are in none, {missing[0]} among them"
    )
    known = set(missing)
    wrappers = Counter(
        ".".join(steps[:at])
        for steps in (name.split(".") for name in others)
        for at in range(1, _DEEPEST + 1)
        if ".".join(steps[at:]) in known
    )
    if wrappers:
        [(wrapper, _)] = wrappers.most_common(1)
        pattern = re.escape(f"{wrapper}.")
        return f"{lacks}: names begin with '{wrapper}.'; write `rename: [['^{pattern}', '']]`"
    if not others:
        return f"{lacks}: the checkpoint is incomplete, or of another architecture"
    prefix = _common(others)
    begin = f"begin with '{prefix}'" if prefix else f"are named as {others[0]}"
    return f"{lacks}: the others {begin}; give pairs of regular expressions with `rename`, or a command with `convert`"


def _common(names: Sequence[str]) -> str:
    """Return the steps with which all names begin."""
    first, last = min(names).split("."), max(names).split(".")
    steps = 0
    while steps < min(len(first), len(last)) - 1 and first[steps] == last[steps]:
        steps += 1
    return "".join(f"{step}." for step in first[:steps])
