"""A checkpoint's LM head without the rest, for probes that look at nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.model.checkpoint_files import check_checkpoint_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import PreTrainedModel


# Names that checkpoints give the head where transformers now calls it otherwise.
_HEAD_NAMES = ("lm_head.weight", "embed_out.weight")


class HeadNotFoundError(LmsatError):
    """The head is not stored as a tensor that can be read alone: the whole checkpoint has to be loaded."""


def load_head(
    folder: Path, *, dtype: torch.dtype | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Return a model whose LM head has its weights; all other tensors are on the meta device, without data.

    ``dtype`` is by default what the configuration says, as when the whole is loaded. The shard that holds the
    head is the only file of weights that need be there.

    Raises:
        HeadNotFoundError: If the head's tensor cannot be read alone.
        LmsatError: For a folder that is no checkpoint.
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
    weight = _read(folder, model, head, _HEAD_NAMES)
    own = weight is not None
    if weight is None and tied:
        weight = _read(folder, model, inputs)
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


def _read(
    folder: Path, model: PreTrainedModel, module: Any, other_names: Sequence[str] = ()
) -> torch.Tensor | None:
    """Return the weight of a module from the safetensors files, under its own name or the base model's."""
    prefix = f"{model.base_model_prefix}."
    paths = [f"{name}.weight" for name, found in model.named_modules() if found is module]
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
