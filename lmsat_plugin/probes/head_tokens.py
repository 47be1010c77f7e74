"""Which tokens of a text costly probes of the LM head take: some, spread over the text, the same in any batches."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import PositiveInt

from lmsat_plugin.lazy import torch
from lmsat_plugin.probe import TokenBatch
from lmsat_plugin.settings import Settings

_USUAL_TOKENS = 8192


class HeadTokensSettings(Settings):
    """How many tokens a probe takes that costs more than the LM head itself for each of them."""

    head_tokens: PositiveInt | Literal["all"] | None = None
    """Tokens, spread over the text, that the probe takes; by default 8,192, or all where heads are trained."""

    def stride(self, tokens: int, *, trains: bool = False) -> int:
        """Return of how many tokens the probe takes one, for a text of so many."""
        wanted = self.head_tokens or ("all" if trains else _USUAL_TOKENS)
        return 1 if wanted == "all" else -(-tokens // wanted)


def spread(batch: TokenBatch, stride: int) -> torch.Tensor:
    """Return the indices of the tokens of a batch that the probe takes: by their documents and places in the window."""
    draws_N, device = batch.draws_N, batch.targets_N.device
    if draws_N is None:
        draws_N = (batch.documents_N + batch.positions_N).cpu().numpy()
    taken = torch.from_numpy(np.flatnonzero(draws_N % stride == 0))
    return taken.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else taken.to(device)


def part_of(batch: TokenBatch, taken: torch.Tensor) -> TokenBatch:
    """Return the tokens of a batch that have these indices."""
    return TokenBatch(
        targets_N=batch.targets_N[taken], documents_N=batch.documents_N[taken], positions_N=batch.positions_N[taken]
    )
