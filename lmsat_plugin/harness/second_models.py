"""How ``--model lmsat`` restricts an LM head, and loads another checkpoint in the same way as its own."""

from __future__ import annotations

from typing import Any

import transformers
from lm_eval.models.utils_hf import get_dtype

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import user_path
from lmsat_plugin.measurement.engine import LoadedModel
from lmsat_plugin.measurement.references import Reference, References
from lmsat_plugin.measuring import load_checkpoint
from lmsat_plugin.model.head_files import RestrictedHead
from lmsat_plugin.model.restricted_head import load_restricted_head, truncate_head

CHANGES_WEIGHTS = {
    *("peft", "delta", "gguf_file", "autogptq", "gptqmodel", "tp_plan", "parallelize", "subfolder"),
    *("load_in_8bit", "load_in_4bit", "quantization_config", "device_map"),
    *("variant", "use_safetensors", "key_mapping", "state_dict", "config"),
}
"""Arguments with which the model's weights are not those that a folder's usual files store."""


class LoadsReferences:
    """What of a model of lm-eval is about its restricted head, and about other checkpoints beside its own."""

    lmsat_references: References | None = None
    """The references of a checkpoint of a series; None for one that is measured alone."""
    lmsat_adapter: dict[str, Any] | None
    restricted_head: RestrictedHead | None
    head: str | None
    head_rank: int | None
    merge: bool
    model: Any
    device: Any
    _given: dict[str, Any]
    _arguments: set[str]

    def _restrict_head(self) -> None:
        self.restricted_head = self._with_restricted_head(self.model)

    def _with_restricted_head(self, model: transformers.PreTrainedModel) -> RestrictedHead | None:
        """Restrict a model's head as the arguments say; return what was loaded, if it is the model's head."""
        restricted = None
        if self.head is not None:
            restricted = load_restricted_head(model, user_path(self.head))
        if self.head_rank is not None:
            truncate_head(model, self.head_rank)
            # What was loaded is not the model's head any more.
            restricted = None
        return restricted

    def load_reference(self, reference: Reference) -> LoadedModel:
        """Load another checkpoint beside this one, in the same way. Raises `LmsatError` for one that cannot be."""
        if named := sorted(self._arguments & CHANGES_WEIGHTS):
            raise LmsatError(f"no second checkpoint is loaded with {named[0]}: leave that out")
        tokenizer = self._given.get("tokenizer")
        loaded = load_checkpoint(
            str(reference.source),
            revision=reference.revision,
            dtype=get_dtype(self._given.get("dtype", "auto")),
            device=str(self.device),
            trust_remote_code=bool(self._given.get("trust_remote_code")),
            merge=self.merge and self.lmsat_adapter is not None,
            tokenizer=tokenizer if isinstance(tokenizer, str) else None,
        )
        self._with_restricted_head(loaded.model)
        return loaded
