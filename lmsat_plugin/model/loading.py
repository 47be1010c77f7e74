"""Load a whole checkpoint without invented weights, or its LM head alone."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.lazy import torch
from lmsat_plugin.model.checkpoint_files import (
    check_checkpoint_folder,
    local_folder,
    read_index,
    unread_weights,
    weight_index,
    weight_paths,
)
from lmsat_plugin.model.computing_type import computing_type, note_stored_type
from lmsat_plugin.model.lm_head import is_tied
from lmsat_plugin.model.memory import free_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

# The head's names in files of models whose head transformers has renamed since.
_HEAD_NAMES = {
    "gpt_neox": ("lm_head.weight", "embed_out.weight"),
    "gpt_neox_japanese": ("lm_head.weight", "embed_out.weight"),
}


def load_whole(loader: Any) -> Any:
    """Return a stand-in for an Auto class whose ``from_pretrained`` refuses missing or misshapen weights.

    transformers fills missing weights with random numbers and a warning; measuring those would be misleading. Where
    files contradict each other, what transformers takes stays, and a warning says it. The model is noted the type of
    its files (`stored_type`). Raises `LmsatError` for an encoder-decoder model, for weights that are code, and naming
    the first weight that is missing.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    def from_pretrained(pretrained: str, **kwargs: Any) -> Any:
        stated = None
        if loader is AutoModelForCausalLM and not kwargs.get("gguf_file"):
            own = {key: kwargs[key] for key in ("revision", "subfolder") if kwargs.get(key)}
            # Where nothing is said of it, transformers would ask on the terminal.
            trusts = bool(kwargs.get("trust_remote_code"))
            config = AutoConfig.from_pretrained(pretrained, trust_remote_code=trusts, **own)
            check_decoder(config, pretrained)
            stated = getattr(config, "dtype", None)
        if (Path(pretrained) / "adapter_config.json").is_file():
            # An adapter beside the model is put on it by `put_on`: transformers would do so in another type.
            kwargs = {**kwargs, "adapter_kwargs": {"subfolder": "no-adapter"}}
        try:
            model, info = loader.from_pretrained(
                pretrained, output_loading_info=True, **{"ignore_mismatched_sizes": True, **kwargs}
            )
        except pickle.UnpicklingError as error:
            raise LmsatError(describe_pickle(pretrained)) from error
        if info["mismatched_keys"] and not kwargs.get("ignore_mismatched_sizes"):
            name, theirs, ours = sorted(info["mismatched_keys"])[0]
            raise LmsatError(
                f"{pretrained} has {name} of shape {tuple(theirs)} where its config.json says {tuple(ours)}: "
                "the checkpoint is of another architecture or vocabulary; give one that is whole"
            )
        if missing := sorted(info["missing_keys"]):
            raise LmsatError(_describe_missing(pretrained, model, missing, info["unexpected_keys"]))
        keep_untied(pretrained, model)
        if model.dtype == torch.float64 and getattr(model.config, "_experts_implementation", None) == "grouped_mm":
            # PyTorch's grouped product takes no float64.
            model.set_experts_implementation("eager")
        if not kwargs.get("gguf_file"):
            note_stored_type(model, model.dtype if kwargs.get("dtype") == "auto" else stated)
        _warn_of_unread(pretrained, str(kwargs.get("subfolder") or ""))
        return model

    return SimpleNamespace(from_pretrained=from_pretrained)


def describe_pickle(name: str) -> str:
    """Return the sentence about a pickle of more than tensors; torch's own recommends to run the code in it."""
    return (
        f"the weights of {name} are a pickle that holds more than tensors, or is broken, and is not loaded, since it "
        "may run any code: ask for safetensors, or save its tensors alone with torch.save where you trust it"
    )


def check_decoder(config: Any, name: str) -> None:
    """Raise `LmsatError` for an encoder-decoder model, of whose class transformers says that it is unknown."""
    if getattr(config, "is_encoder_decoder", False):
        raise LmsatError(
            f"{name} is an encoder-decoder model ({config.model_type}): "
            "lmsat measures decoder-only models; leave it out"
        )


def _describe_missing(pretrained: str, model: Any, missing: list[str], unexpected: Iterable[str]) -> str:
    """Return the sentence about weights that the files lack."""
    lacks = f"{pretrained} lacks {len(missing)} of the model's weights, {missing[0]} among them: "
    known = {name.removeprefix(f"{model.base_model_prefix}.") for name in missing} | set(missing)
    wrappers = Counter(
        ".".join(steps[:count])
        for steps in (name.split(".") for name in unexpected)
        for count in (1, 2)
        if ".".join(steps[count:]) in known
    )
    if wrappers:
        [(wrapper, _)] = wrappers.most_common(1)
        return f"{lacks}its tensors' names begin with '{wrapper}.', which a wrapper has added; save them without it"
    head = next((name for name, module in model.named_modules() if module is model.get_output_embeddings()), None)
    if missing == [f"{head}.weight"] and not getattr(model.config, "tie_word_embeddings", False):
        return (
            f"{pretrained} lacks {missing[0]}, the LM head, and its config.json says that it has one of its own: "
            "copy it again, or set tie_word_embeddings to true there if the model was trained so"
        )
    return f"{lacks}the checkpoint is incomplete or of another architecture; copy or download it again"


def keep_untied(pretrained: str, model: Any) -> None:
    """Have a head stay that the files hold beside an embedding to which the configuration ties it.

    transformers loads both where they differ, and would tie them when it is asked again, as lm-eval does. Nor is one of
    them tied that has an adapter of its own.
    """
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if any(hasattr(end, "get_base_layer") or hasattr(end, "original_module") for end in ends):
        _untie(model)
        return
    expected = getattr(model, "get_expanded_tied_weights_keys", None)
    pairs = expected(all_submodels=True) if expected is not None else {}
    untied = [
        target
        for target, source in pairs.items()
        if _differ(model.get_parameter_or_buffer(target), model.get_parameter_or_buffer(source))
    ]
    if not untied:
        return
    _untie(model)
    logger.warning(
        "%s holds %s besides the embedding, and its config.json ties the two: the file's is taken, "
        "as transformers does; set tie_word_embeddings to false there",
        pretrained,
        untied[0],
    )


def _untie(model: Any) -> None:
    for module in model.modules():
        if getattr(getattr(module, "config", None), "tie_word_embeddings", False):
            module.config.tie_word_embeddings = False


def _differ(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first is second or "meta" in (first.device.type, second.device.type):
        return False
    return not torch.equal(first.to(second.device), second)


def _warn_of_unread(pretrained: str, subfolder: str) -> None:
    folder = local_folder(pretrained)
    if folder is None:
        return
    try:
        unread = unread_weights(folder / subfolder)
    except LmsatError:
        # Weights in files that only arguments of the model name.
        return
    if unread:
        logger.warning(
            "%s holds %s besides the weights that are loaded, as transformers does: it is not read; remove it",
            pretrained,
            unread[0] if len(unread) == 1 else f"{unread[0]} and {len(unread) - 1} more",
        )


class HeadNotFoundError(LmsatError):
    """The head is not stored as a tensor that can be read alone: the whole checkpoint has to be loaded."""


def load_head(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - it cannot be changed
) -> PreTrainedModel:
    """Return a model with the weights of its LM head; all other tensors are on the meta device, without data.

    ``dtype`` is by default the one that the whole model would have on ``device``. Of the files of weights only the
    shard that holds the head has to be there.

    Raises:
        HeadNotFoundError: If the head's tensor cannot be read alone, or the files leave open what transformers takes.
        LmsatError: For a folder that is not a checkpoint.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    check_checkpoint_folder(str(folder), whole=False)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        check_decoder(config, str(folder))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise HeadNotFoundError(f"{folder} is not a plain causal model ({first_sentence(error)})") from error
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(getattr(head, "weight", None), torch.Tensor) or hasattr(config, "quantization_config"):
        raise HeadNotFoundError(f"{folder} has no LM head of ordinary weights")
    files = _StoredTensors(folder)
    weight = files.read(_names(model, head) | {*_HEAD_NAMES.get(config.model_type, ())})
    tied = is_tied(model)
    if tied:
        embedding = files.read(_names(model, inputs))
        # Where the two differ, or only the head is there, it depends on transformers' version what becomes of them.
        if embedding is None or (weight is not None and not torch.equal(weight, embedding)):
            raise HeadNotFoundError(f"{folder} does not store the embedding, to which its LM head is tied, alone")
        weight = embedding
    if weight is None or weight.shape != head.weight.shape:
        raise HeadNotFoundError(f"{folder} does not store its LM head as a tensor of its own")
    stored = stated = getattr(config, "dtype", None)
    if dtype is None:
        if stated is None and not files.have_one_dtype():
            raise HeadNotFoundError(f"{folder} has weights of several types, and no dtype in its config.json")
        stored = stated or weight.dtype
        # transformers rounds to the stated type, whatever the file holds, before the model is widened.
        weight = weight.to(stored)
        n_bytes = stored.itemsize * sum(each.numel() for each in model.parameters())
        dtype = computing_type(stored, device, n_bytes, free=free_memory(torch.device("cpu")))
    note_stored_type(model, stored)
    # What has no data, too: the model says of itself that it is of this type.
    model.to(dtype)
    parameter = torch.nn.Parameter(weight.to(dtype), requires_grad=False)
    head.weight = parameter
    if tied:
        inputs.weight = parameter
    _warn_of_unread(str(folder), "")
    return model.eval()


def _names(model: PreTrainedModel, module: Any) -> set[str]:
    """Return the names that a module's weight may have in files: its own, or the base model's."""
    paths = [f"{name}.weight" for name, candidate in model.named_modules() if candidate is module]
    return {*paths, *(path.removeprefix(f"{model.base_model_prefix}.") for path in paths)}


class _StoredTensors:
    """The tensors in the files of safetensors that transformers loads. Some of several shards may be missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths = weight_paths(folder, whole=False)
        if not all(path.suffix == ".safetensors" for path in self._paths):
            raise HeadNotFoundError(f"{folder} has no safetensors, whose tensors can be read alone")

    def read(self, names: AbstractSet[str]) -> torch.Tensor | None:
        """Return the tensor of one of these names; None if there is none.

        Raises `HeadNotFoundError` if there are several, or if it is in a shard that is missing.
        """
        found: list[torch.Tensor] = []
        for path in self._paths:
            with self._open(path) as tensors:
                found += [tensors.get_tensor(name) for name in names & set(tensors.keys())]
        if len(found) > 1 or (not found and self._is_elsewhere(names)):
            raise HeadNotFoundError(f"{self._folder} does not store {min(names)} once, in a shard that is here")
        return found[0] if found else None

    def have_one_dtype(self) -> bool:
        """Return whether all tensors of floats have one type."""
        dtypes = set()
        for path in self._paths:
            with self._open(path) as tensors:
                dtypes |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
        return sum("F" in dtype for dtype in dtypes) == 1

    @contextmanager
    def _open(self, path: Path) -> Iterator[Any]:
        try:
            with safe_open(path, framework="pt") as tensors:
                yield tensors
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise LmsatError(
                f"the LM head of {self._folder} cannot be read ({first_sentence(error)}): copy or download it again"
            ) from error

    def _is_elsewhere(self, names: AbstractSet[str]) -> bool:
        index = weight_index(self._folder)
        return index is not None and bool(names & read_index(index).keys())
