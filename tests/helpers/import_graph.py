"""The imports among the package's own modules, as its source states them: at the top, inside functions, for types."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from places import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PACKAGE = ROOT / "lmsat_plugin"


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Return the file of each module, by its dotted name below the package; that of a folder is its ``__init__``."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Return the modules of the package that each one imports, wherever the import stands."""
    files = modules(package)
    return {name: set(_imports(name, path, files, package.name)) - {name} for name, path in files.items()}


def _imports(name: str, path: Path, files: Mapping[str, Path], package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            if target != package and not target.startswith(f"{package}."):
                continue
            own = target.removeprefix(package).removeprefix(".")
            # What is imported from a module is a name in it, unless it is a module itself.
            yield own if own in files else own.rpartition(".")[0]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found
