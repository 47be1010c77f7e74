"""Names that cost nothing until they are used: the public ones of a package, and torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def lazy_names(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package, so that importing the package does not import what lies behind it.

    ``names`` are the public names by module, relative to the package. No module may bear the name of what it holds:
    Python puts an imported module into its package under its own name, and this function is asked for missing names
    only.
    """
    modules = {name: f"{package}.{module}" for module, held in names.items() for name in held}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(import_module(modules[name]), name)

    return get


class LazyModule(ModuleType):
    """A module that is imported when one of its names is first used, so that naming it costs nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return import_module(self.__name__).__dict__

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(import_module(self.__name__), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(import_module(self.__name__), name)


def without_gradients(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that runs in ``torch.no_grad()``, whose own decorator would import torch."""

    @wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> T:
        with torch.no_grad():
            return function(*arguments, **named)

    return run


# What a plan reads of probes and conversions uses torch in functions alone: there it is imported from here.
if TYPE_CHECKING:
    import torch as torch
else:
    torch = LazyModule("torch")
