"""Load a whole checkpoint without invented weights, or its LM head alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.model.checkpoint_files import check_checkpoint_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Names of the head in checkpoints whose models transformers has renamed since.
_HEAD_NAMES = ("lm_head.weight", "embed_out.weight")


def load_whole(loader: Any) -> Any:
    """Return a stand-in for an Auto class whose ``from_pretrained`` refuses missing or misshapen weights.

    transformers fills missing weights with random numbers and a warning; measuring those would be misleading.
    Raises `LmsatError` naming the first such weight.
    """

    def from_pretrained(pretrained: str, **kwargs: Any) -> Any:
        model, info = loader.from_pretrained(
            pretrained, output_loading_info=True, **{"ignore_mismatched_sizes": True, **kwargs}
        )
        if info["mismatched_keys"] and not kwargs.get("ignore_mismatched_sizes"):
            name, theirs, ours = sorted(info["mismatched_keys"])[0]
            raise LmsatError(
                f"{pretrained} has {name} of shape {tuple(theirs)} where its config.json says {tuple(ours)}: "
                "the checkpoint is of another architecture or vocabulary; give one that is whole"
            )
        if missing := sorted(info["missing_keys"]):
            raise LmsatError(
                f"{pretrained} lacks {len(missing)} of the model's weights, {missing[0]} among them: "
                "the checkpoint is incomplete or of another architecture; copy or download it again"
            )
        return model

    return SimpleNamespace(from_pretrained=from_pretrained)


class HeadNotFoundError(LmsatError):
    """The head is not stored as a tensor that can be read alone: the whole checkpoint has to be loaded."""


def load_head(folder: Path, *, dtype: torch.dtype | None = None, trust_remote_code: bool = False) -> PreTrainedModel:
    """Return a model with the weights of its LM head; all other tensors are on the meta device, without data.

    ``dtype`` is by default the configuration's, as when the whole model is loaded. Of the files of weights only the
    shard that holds the head has to be there.

    Raises:
        HeadNotFoundError: If the head's tensor cannot be read alone.
        LmsatError: For a folder that is not a checkpoint.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    check_checkpoint_folder(str(folder))
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise HeadNotFoundError(f"{folder} is not a plain causal model ({first_sentence(error)})") from error
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(getattr(head, "weight", None), torch.Tensor) or hasattr(config, "quantization_config"):
        raise HeadNotFoundError(f"{folder} has no LM head of ordinary weights")
    tied = bool(getattr(config.get_text_config(), "tie_word_embeddings", False))
    weight = _read_weight(folder, model, head, _HEAD_NAMES)
    own = weight is not None
    if weight is None and tied:
        weight = _read_weight(folder, model, inputs)
    if weight is None or weight.shape != head.weight.shape:
        raise HeadNotFoundError(f"{folder} does not store its LM head as a tensor of its own")
    wanted = dtype or getattr(config, "dtype", None) or weight.dtype
    parameter = nn.Parameter(weight.to(wanted), requires_grad=False)
    head.weight = parameter
    if tied and own:
        model.config.tie_word_embeddings = False
    elif tied:
        inputs.weight = parameter
    return model.eval()


def _read_weight(
    folder: Path, model: PreTrainedModel, module: Any, other_names: Sequence[str] = ()
) -> torch.Tensor | None:
    """Return a module's weight from the safetensors files, under its own name or the base model's; None without."""
    prefix = f"{model.base_model_prefix}."
    paths = [f"{name}.weight" for name, candidate in model.named_modules() if candidate is module]
    names = {*paths, *(path.removeprefix(prefix) for path in paths), *other_names}
    index = folder / "model.safetensors.index.json"
    try:
        if index.is_file():
            shards = json.loads(index.read_text("utf-8"))["weight_map"]
            files = [folder / shards[name] for name in names if name in shards]
        else:
            files = sorted(folder.glob("*.safetensors"))
        for file in files:
            with safe_open(file, framework="pt") as tensors:
                for name in names & set(tensors.keys()):
                    return tensors.get_tensor(name)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise LmsatError(
            f"the LM head of {folder} cannot be read ({first_sentence(error)}): copy or download it again"
        ) from error
    return None
