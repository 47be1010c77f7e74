"""Which weight of a model is not finite: what tells a run that diverged from a number type that is too narrow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from lmsat_plugin.errors import DivergedError
from lmsat_plugin.lazy import torch

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


def weight_not_finite(model: torch.nn.Module) -> str | None:
    """Return a clause that names the first weight with NaN or infinity, and its layer; None if all are finite."""
    for name, weight in model.named_parameters():
        # A sum is finite where all are, unless it overflows: only then each number is looked at.
        if weight.is_meta or torch.isfinite(weight.sum()) or bool(torch.isfinite(weight).all()):
            continue
        layer = _LAYER.search(name)
        place = f" (layer {int(layer[1]) + 1})" if layer else ""
        return f"the weight {name}{place} is not finite"
    return None


@contextmanager
def naming_weights(model: torch.nn.Module) -> Iterator[None]:
    """Add to a `DivergedError` which weight of the model is not finite, where one is not."""
    try:
        yield
    except DivergedError as error:
        if (weights := weight_not_finite(model)) is None:
            raise
        raise DivergedError(error.what, weights) from error
