"""How ``--model lmsat`` finds an adapter of PEFT, loads its base, puts it on, and exchanges it for another."""

from __future__ import annotations

from typing import Any

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import FileStamp
from lmsat_plugin.model.adapters import Adapter, find_adapter
from lmsat_plugin.model.checkpoint_files import holds_tokenizer
from lmsat_plugin.model.peft_models import AdaptedModel, put_on


class TakesAdapters:
    """What of a model of lm-eval is about an adapter on it."""

    adapted: AdaptedModel | None = None
    lmsat_adapter: dict[str, Any] | None = None
    """What results note of the adapter."""
    _base_stamp: dict[str, FileStamp] = {}
    _given: dict[str, Any]
    lmsat_outcomes: list[Any]
    lmsat_downstream: dict[str, Any] | None
    model: Any
    config: Any
    peft: Any

    def _find_adapter(self, pretrained: Any, merge: bool) -> Adapter | None:
        given = {key: self._given[key] for key in ("peft", "revision", "subfolder") if self._given.get(key)}
        adapter = find_adapter(pretrained, **given) if isinstance(pretrained, str) else None
        if merge and adapter is None:
            raise LmsatError(f"merge=True is for an adapter, and pretrained={pretrained} is none: leave it out")
        return adapter

    def _base_of(self, adapter: Adapter, kwargs: dict[str, Any]) -> str:
        """Return what the base is loaded from. Has ``kwargs`` be those of the base, with the adapter's tokenizer."""
        adapter.check()
        if not kwargs.get("tokenizer") and holds_tokenizer(adapter.folder):
            kwargs["tokenizer"] = str(adapter.folder)
        if kwargs.get("peft"):
            return str(adapter.base)
        kwargs.pop("subfolder", None)
        kwargs["revision"] = "main"
        self._base_stamp = adapter.base_stamp()
        return str(adapter.base_folder)

    def _put_on(self, adapter: Adapter, merge: bool) -> None:
        self.adapted = put_on(self.model, adapter, merge=merge)
        self.lmsat_adapter = adapter.describe(merged=merge)
        if not self.peft:
            # What is loaded is the adapter, not the base that has another.
            for config in (self.config, self.model.config):
                config._commit_hash = adapter.commit

    def _exchange_adapter(self, folder: str) -> bool:
        adapter = find_adapter(folder)
        if self.adapted is None or adapter is None or adapter.base_stamp() != self._base_stamp:
            return False
        adapter.check()
        exchanged = self.adapted.exchange(adapter)
        if exchanged is None:
            return False
        self.adapted, self.lmsat_adapter = exchanged, adapter.describe()
        self.lmsat_outcomes, self.lmsat_downstream = [], None
        return True
