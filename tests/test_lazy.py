"""Public names of packages: each is what its module holds, however often it is imported, and costs nothing unasked."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

PACKAGES = ("lmsat_plugin", "lmsat_plugin.results", "lmsat_plugin.analysis", "lmsat_plugin.figures")
HEAVY = "{'torch', 'lm_eval', 'transformers', 'scipy', 'matplotlib', 'pandas'}"


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_are_found_again_and_again(name):
    package = importlib.import_module(name)
    for public in package.__all__:
        first = getattr(package, public)
        assert not isinstance(first, ModuleType)
        if hasattr(first, "__qualname__"):
            assert getattr(importlib.import_module(first.__module__), public) is first
        assert getattr(package, public) is first, "a module of that name has taken its place"


@pytest.mark.parametrize("name", PACKAGES)
def test_unknown_names_are_refused(name):
    package = importlib.import_module(name)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nonsense'"):
        _ = package.nonsense


@pytest.mark.parametrize(
    "module",
    [
        *PACKAGES,
        "lmsat_plugin.results.tree",
        "lmsat_plugin.analysis.saturation.metric_series",
        "lmsat_plugin.analysis.scaling_laws.kaplan",
        "lmsat_plugin.analysis.rank_needed.dimension",
    ],
)
def test_a_package_does_not_import_what_lies_behind_it(module):
    code = f"import sys, {module}; print(*sorted({HEAVY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_lazy_module_is_the_module(monkeypatch):
    import torch

    from lmsat_plugin.lazy import torch as lazy
    from lmsat_plugin.lazy import without_gradients

    assert lazy.Tensor is torch.Tensor
    monkeypatch.setattr(lazy, "zeros", "changed")
    assert torch.zeros == "changed"
    monkeypatch.undo()
    assert callable(torch.zeros)

    @without_gradients
    def named(flag: bool = True) -> bool:
        """Its own words."""
        return torch.is_grad_enabled() and flag

    assert (named(flag=True), torch.is_grad_enabled()) == (False, True)
    assert (named.__name__, named.__doc__) == ("named", "Its own words.")
