"""What a model is told so that tokens of one row attend along their own paths, and whether it can be told.

Shapes: B rows, T tokens of a row, P tokens of the trunk before them.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lmsat_plugin.scoring.batches import RowBatch

_FULL, _SLIDING = "full_attention", "sliding_attention"
# Positions enter the keys as the length of the sequence has them, which is another with a trunk.
_BY_LENGTH = {"dynamic", "longrope"}


class Attention:
    """The masks of a model's attention layers, as its configuration describes these."""

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        self._kinds = set(getattr(config, "layer_types", None) or ())
        self._window = getattr(config, "sliding_window", None)
        self._implementation = getattr(config, "_attn_implementation", None)
        self._dtype = model.dtype
        self._scaling = _rope_types(config)
        self.trouble = self._trouble()
        """Why the model cannot be told; None if it seems that it can."""

    def _trouble(self) -> str | None:
        if self._implementation not in ("sdpa", "eager"):
            return f"attention by {self._implementation} takes no mask of its own"
        if others := self._kinds - {_FULL, _SLIDING}:
            return f"it has layers of {min(others)}"
        if self._scaling & _BY_LENGTH:
            return f"its positions depend on the length ({min(self._scaling & _BY_LENGTH)})"
        return None

    def arguments(self, batch: RowBatch, prefix: int, device: torch.device) -> dict[str, Any]:
        """Return the arguments of the model's forward for a batch behind ``prefix`` tokens."""
        if batch.attends_BTT is None:
            return {"position_ids": batch.positions_BT.to(device)} if prefix else {}
        attends = batch.attends_BTT.to(device)
        rows, length, _ = attends.shape
        before = torch.ones(rows, length, prefix, dtype=torch.bool, device=device)
        full = torch.cat([before, attends], 2)
        masks = {_FULL: self._mask(full)}
        if self._window is not None and (not self._kinds or _SLIDING in self._kinds):
            positions_BT = batch.positions_BT.to(device)
            places = torch.arange(prefix, device=device).expand(rows, prefix)
            keys = torch.cat([places, positions_BT], 1)
            near = positions_BT[:, :, None] - keys[:, None, :] < self._window
            masks[_SLIDING] = self._mask(full & near)
        mask: Any = masks
        if not self._kinds or len(masks) == 1:
            # Without kinds of layers all have the window, where there is one.
            mask = masks.get(_SLIDING, masks[_FULL])
        return {"position_ids": batch.positions_BT.to(device), "attention_mask": mask}

    def _mask(self, attends: torch.Tensor) -> torch.Tensor:
        if self._implementation == "sdpa":
            return attends[:, None]
        lowest = torch.finfo(self._dtype).min
        return torch.zeros(attends.shape, dtype=self._dtype, device=attends.device).masked_fill(~attends, lowest)[
            :, None
        ]


def _rope_types(config: Any) -> set[str]:
    """Return the kinds of rotary scaling of a configuration; there may be one for each kind of layer."""
    stated = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    each = [stated, *(value for value in stated.values() if isinstance(value, dict))]
    return {str(one.get("rope_type") or one.get("type")) for one in each} - {"None"}


def branch(cache: DynamicCache | None, rows: int) -> DynamicCache:
    """Return a cache for ``rows`` rows that all begin with what ``cache`` holds of one; it stays as it is."""
    grown = DynamicCache()
    if cache is None:
        return grown
    layers: list[Any] = []
    for layer in cache.layers:
        own = DynamicLayer()
        if layer.is_initialized:
            own.lazy_initialization(layer.keys, layer.values)
            own.keys, own.values = (tensor.expand(rows, -1, -1, -1) for tensor in (layer.keys, layer.values))
        layers.append(own)
    grown.layers = layers
    return grown
