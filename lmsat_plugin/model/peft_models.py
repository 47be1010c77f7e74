"""Put an adapter of PEFT on its base model, in the place of another one, or into the weights.

The layers that PEFT puts into a model stay in it: it is measured without PEFT's own wrapper.
"""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.model.adapters import Adapter
from lmsat_plugin.model.lm_head import is_adapted, is_tied
from lmsat_plugin.model.loading import describe_pickle

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

# PEFT's own name for the adapter.
_NAME = "default"
# With these at the start, the base keeps its weights; others, such as pissa, change them.
_KEEPS_BASE = (True, False, None, "gaussian")


@dataclass(frozen=True)
class AdaptedModel:
    """A model with an adapter on it, which another one of the same shape can take the place of."""

    adapter: Adapter
    wrapped: Any
    """PEFT's wrapper around the model."""

    def exchange(self, other: Adapter) -> AdaptedModel | None:
        """Put another adapter in the place of this one; None, with nothing changed, where that is not possible.

        It is for adapters of the same settings and shapes that change blocks alone. Raises `LmsatError` for one that is
        broken.
        """
        ours, theirs = self.adapter, other
        if ours.kind not in ("LORA", "IA3") or ours.settings != theirs.settings or theirs.shapes is None:
            return None
        if ours.shapes != theirs.shapes or ours.changes_ends or theirs.changes_ends:
            return None
        if ours.settings.get("init_lora_weights") not in _KEEPS_BASE:
            return None
        # As PEFT names them in the model. Its own loader takes ten times as long for the same.
        here = {name.replace(f".{_NAME}", ""): own for name, own in self.wrapped.named_parameters() if _NAME in name}
        if not theirs.shapes.keys() <= here.keys():
            return None
        with torch.no_grad(), _loading(other):
            for name, weight in load_file(other.weights).items():
                here[name].copy_(weight)
        return AdaptedModel(other, self.wrapped)


def put_on(model: PreTrainedModel, adapter: Adapter, *, merge: bool = False) -> AdaptedModel | None:
    """Put an adapter on a model, in place: as layers of PEFT's, or with ``merge`` into the weights, which returns None.

    Raises `LmsatError` where PEFT is missing, for an adapter of another model, and for a kind that cannot be merged.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise LmsatError(f"{adapter.name} is an adapter, which needs the package peft: pip install peft") from error
    adapter.check()
    if adapter.is_on_itself:
        logger.warning(
            "%s holds a whole model and an adapter: the adapter is put on this model, as transformers does; remove one "
            "of the two if that is not meant",
            adapter.folder,
        )
    # What PEFT draws at random is overwritten, and nobody else's numbers may depend on it.
    with torch.random.fork_rng(), _loading(adapter):
        _resize(model, adapter)
        tied = is_tied(model)
        wrapped = PeftModel.from_pretrained(model, str(adapter.folder), torch_device=str(model.device))
        wrapped.eval()
    _load(wrapped, adapter)
    if not merge:
        return AdaptedModel(adapter, wrapped)
    if tied and any(map(is_adapted, (model.get_input_embeddings(), model.get_output_embeddings()))):
        raise LmsatError(
            f"the adapter {adapter.name} changes the LM head or the embeddings, which are one tensor in "
            f"{adapter.base}: merged into it, it would change both; leave merge out"
        )
    if not hasattr(wrapped.base_model, "merge_and_unload"):
        raise LmsatError(f"the adapter {adapter.name} is of the kind {adapter.kind}, which cannot be merged: no merge")
    with _loading(adapter):
        wrapped.merge_and_unload()
    return None


def _load(wrapped: Any, adapter: Adapter) -> None:
    """Load an adapter's weights. Raises `LmsatError` where some are missing, or are of layers that are not there."""
    from peft import load_peft_weights, set_peft_model_state_dict
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    with torch.no_grad(), _loading(adapter):
        weights = load_peft_weights(str(adapter.folder), device=str(wrapped.get_base_model().device))
        result: Any = set_peft_model_state_dict(wrapped, weights)
    prefix = PEFT_TYPE_TO_PREFIX_MAPPING.get(wrapped.peft_config[_NAME].peft_type, "")
    _check_all(adapter, "lacks", (name for name in result.missing_keys if _NAME in name and prefix in name))
    # Of embeddings with new rows PEFT saves a second copy under such a name.
    strange = (name for name in result.unexpected_keys if not name.endswith(".modules_to_save.weight"))
    _check_all(adapter, "holds", strange)


def _check_all(adapter: Adapter, verb: str, names: Iterable[str]) -> None:
    if found := sorted(names):
        where = "layers that its base model has" if verb == "lacks" else "no layer of its base model"
        raise LmsatError(
            f"the adapter {adapter.name} {verb} {found[0]} ({len(found)} in all), of {where}: "
            f"it is of another model than {adapter.base}, or incomplete"
        )


def _resize(model: PreTrainedModel, adapter: Adapter) -> None:
    """Give the embeddings and the head as many rows as an adapter has that was trained with new tokens."""
    if adapter.shapes is None:
        return
    paths = {id(module): path for path, module in model.named_modules()}
    parts = {"embeddings": model.get_input_embeddings(), "head": model.get_output_embeddings()}
    rows = {
        what: shape[0]
        for what, part in parts.items()
        for name, shape in adapter.shapes.items()
        if part is not None and name.replace(".base_layer.", ".") == f"base_model.model.{paths[id(part)]}.weight"
    }
    now = model.get_input_embeddings().weight.shape[0]
    new = {count for count in rows.values() if count != now}
    if not new:
        return
    tied = is_tied(model)
    if len(new) > 1 or not (tied or rows.keys() == parts.keys()):
        raise LmsatError(
            f"the adapter {adapter.name} holds {' and '.join(rows)} of {max(new)} rows, and its base model has {now}: "
            "the new rows of embeddings and head are not in it both; save it again with them"
        )
    model.resize_token_embeddings(new.pop(), mean_resizing=False)


@contextmanager
def _loading(adapter: Adapter) -> Iterator[None]:
    """Raise `LmsatError` for what PEFT raises, and leave out its warnings about what is checked here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except LmsatError:
        raise
    except pickle.UnpicklingError as error:
        raise LmsatError(describe_pickle(str(adapter.weights))) from error
    except Exception as error:
        # PyTorch lists what does not fit in lines of their own.
        lines = str(error).splitlines()
        reason = lines[1].strip() if len(lines) > 1 and lines[0].endswith(":") else first_sentence(error)
        raise LmsatError(
            f"the adapter {adapter.name} does not load on {adapter.base} ({reason.rstrip('.')}): "
            "it is of another model, of another version of peft, or broken"
        ) from error
