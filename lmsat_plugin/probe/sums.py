"""Sums over the tokens of all batches and processes.

Shapes: N tokens of one batch that are scored, D width of a layer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.lazy import torch, without_gradients
from lmsat_plugin.model.spectrum import covariance_eigenvalues, device_of_float64, in_float64


class SumsContext(Protocol):
    """What of a `ProbeContext` sums depend on."""

    @property
    def device(self) -> torch.device:
        """The model's device."""

    @property
    def synchronise(self) -> bool:
        """Whether several processes share the corpus, so that sums have to be added across processes."""


class Sums:
    """Named float64 sums that add up across batches and, when computed, across processes.

    ``Sums(context, total=(), by_layer=(n,))`` makes zeros of these shapes; `update` adds to them. Each is an attribute
    of its name, on `device`.
    """

    _initial: ClassVar[float] = 0.0

    def __init__(self, context: SumsContext, **shapes: tuple[int, ...]) -> None:
        self.device = device_of_float64(context.device)
        self.names = tuple(shapes)
        self._synchronise = context.synchronise
        for name, shape in shapes.items():
            setattr(self, name, torch.full(shape, self._initial, dtype=torch.float64, device=self.device))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> torch.Tensor:
            """Return the sum of a name, over this process alone."""

    @without_gradients
    def update(self, **increments: torch.Tensor | float) -> None:
        """Add each tensor, or number, to the sum of its name.

        Raises `LmsatError` for a name that the sums were not made with, and for another shape than theirs.
        """
        for name, increment in increments.items():
            if name not in self.names:
                raise LmsatError(f"there is no sum '{name}' (made: {', '.join(self.names)}): make it in start")
            total = getattr(self, name)
            if not isinstance(increment, torch.Tensor):
                increment = torch.as_tensor(increment, dtype=total.dtype)
            # Broadcast, a number would be added to each entry, or entries to a number.
            if increment.shape != total.shape:
                shapes = f"{tuple(increment.shape)}, and the sum has {tuple(total.shape)}"
                raise LmsatError(f"what is added to the sum '{name}' has the shape {shapes}: give both one shape")
            # First the device: it may be the one that has no float64.
            self._join(total, increment.to(total.device).to(total.dtype))

    def totals(self) -> dict[str, torch.Tensor]:
        """Return all sums over all processes, on the CPU, in the shapes that they were made with."""
        sums = {name: getattr(self, name) for name in self.names}
        if self._synchronise and torch.distributed.is_available() and torch.distributed.is_initialized():
            # Its import takes longer than torch's own, and one process needs none of it.
            from torchmetrics.utilities.distributed import gather_all_tensors

            sums = {name: self._merge(torch.stack(gather_all_tensors(each))) for name, each in sums.items()}
        return {name: each.cpu() for name, each in sums.items()}

    @staticmethod
    def _join(total: torch.Tensor, increment: torch.Tensor) -> None:
        """Take an increment into a total, in place."""
        total += increment

    @staticmethod
    def _merge(of_processes: torch.Tensor) -> torch.Tensor:
        """Return the total of all processes, which are the first dimension."""
        return of_processes.sum(0)


class Maxima(Sums):
    """Named float64 maxima over batches and, when computed, over processes; −∞ where there was nothing."""

    _initial = -float("inf")

    @staticmethod
    def _join(total: torch.Tensor, increment: torch.Tensor) -> None:
        torch.maximum(total, increment, out=total)

    @staticmethod
    def _merge(of_processes: torch.Tensor) -> torch.Tensor:
        return of_processes.amax(0)


_ROWS = 8192


@dataclass(frozen=True)
class StateSpectrum:
    """What the moments of n states h of width D say of them.

    Eigenvalues are falling; one of which only its rounding is left is 0.
    """

    tokens: int
    is_finite: bool
    covariance_D: np.ndarray
    """Eigenvalues of the covariance E[(h − E h)(h − E h)ᵀ]."""
    second_moment_D: np.ndarray
    """Eigenvalues of E[h hᵀ]: the squares of the singular values of the matrix of states over n."""


class StateMoments(Sums):
    """Number n, sum and products Σ h hᵀ of a layer's states h, of which several probes make use. Float64."""

    def __init__(self, context: SumsContext, width: int) -> None:
        super().__init__(context, tokens=(), total=(width,), products=(width, width))

    def add(self, states_ND: torch.Tensor) -> None:
        """Add states, a few thousand rows at a time, since they are of float64."""
        for rows_ND in map(in_float64, states_ND.split(_ROWS)):
            tokens = torch.full_like(rows_ND[0, 0], len(rows_ND))
            self.update(tokens=tokens, total=rows_ND.sum(0), products=rows_ND.T @ rows_ND)

    @functools.cached_property
    def spectrum(self) -> StateSpectrum:
        """The spectrum of the states of all processes. It is computed once; all processes have to ask."""
        sums = self.totals()
        n, total_D, products_DD = float(sums["tokens"]), sums["total"], sums["products"]
        if n == 0 or not torch.isfinite(products_DD).all():
            nothing_D = np.zeros(len(total_D))
            return StateSpectrum(int(n), n == 0, nothing_D, nothing_D)
        centred_D, plain_D = (
            # On a GPU too: a process of torchrun has a single thread.
            covariance_eigenvalues(products_DD.to(self.device) / n, mean_D.to(self.device))
            for mean_D in (total_D / n, torch.zeros_like(total_D))
        )
        return StateSpectrum(int(n), True, centred_D, plain_D)
