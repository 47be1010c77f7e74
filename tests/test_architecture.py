"""The house: rooms in one direction, files of a length that one reads, calls that name their arguments."""

from __future__ import annotations

import ast
import statistics
import textwrap

import pytest
from import_graph import circles, import_graph, modules
from places import ROOT

GROUND = (
    "outside_text",
    "errors",
    "version",
    "lazy",
    "plugin_code",
    "settings",
    "files",
    "markdown",
    "metrics",
    "glossary",
    "yaml_files",
    "passing",
    "hub",
)
ROOMS = (
    *GROUND,
    *("text", "model", "results", "analysis", "probe", "probe_files", "ngrams", "measurement", "scoring", "probes"),
    *("hookspecs", "trackers", "plugins", "measuring", "probe_checks", "probe_packages", "harness"),
    *("ranking", "figures", "page", "series", "conversion", "sweeps", "synthetic", "callback", "demo"),
    *("notebooks", "cli"),
)
"""From the ground up: a room imports only rooms before it. docs/architecture.md draws them."""
LONGEST, MEDIAN, LONGEST_TEST = 400, 130, 450
MOST_POSITIONAL = 4
WITHOUT_TORCH = ("results", "analysis", "ranking", "figures", "page")
PUBLIC_FUNCTIONS = {
    *("measure", "sweep", "report", "leaderboard", "compare", "saturation", "fit", "emergence"),
    *("load_results", "plot"),
}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def arrows_back(graph: dict[str, set[str]]) -> list[str]:
    """Return the imports that run from a room to a later one, or to the package itself."""
    places = {room: place for place, room in enumerate(ROOMS)}
    return [
        f"{module} -> {target or 'lmsat_plugin'}"
        for module, targets in graph.items()
        for target in targets
        if module and (not target or places[room_of(target)] > places[room_of(module)])
    ]


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return import_graph()


def test_every_module_is_in_a_room(graph):
    assert {room_of(module) for module in graph} == {"", *ROOMS}


def test_no_circles(graph):
    assert circles(graph) == []


def test_no_arrow_runs_back(graph):
    assert arrows_back(graph) == []


def test_circles_and_arrows_are_found(tmp_path):
    """Lazy imports, imports for types and imports of a module by its package's name count."""
    package = tmp_path / "lmsat_plugin"
    for name, text in {
        "__init__": "",
        "errors": "def f():\n    from lmsat_plugin import cli\n",
        "files": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lmsat_plugin.hub import Hub\n",
        "hub": "import lmsat_plugin.files\n",
        "cli": "from lmsat_plugin import VERSION\n",
    }.items():
        (package / f"{name}.py").parent.mkdir(exist_ok=True)
        (package / f"{name}.py").write_text(text)
    graph = import_graph(package)
    assert circles(graph) == [["files", "hub"]]
    assert sorted(arrows_back(graph)) == ["cli -> lmsat_plugin", "errors -> cli", "files -> hub"]


def imports(module: str) -> set[str]:
    """Return the packages of others that a module imports, anywhere."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_who_imports_what():
    for module in modules():
        room, packages = room_of(module), imports(module)
        assert "lm_eval" not in packages or room == "harness", module
        assert not packages & {"torch", "lm_eval"} or room not in WITHOUT_TORCH, module
        assert "matplotlib" not in packages or room in ("figures", "page", "hookspecs", "plugins", "cli"), module


def test_no_room_bears_a_public_functions_name():
    """A submodule of that name would shadow the function once it is imported."""
    assert not {room_of(module) for module in modules()} & PUBLIC_FUNCTIONS


def lines(path) -> int:
    return len(path.read_text("utf-8").splitlines())


def test_files_are_short():
    lengths = {module: lines(path) for module, path in modules().items()}
    assert not {module: length for module, length in lengths.items() if length > LONGEST}
    assert statistics.median(lengths.values()) <= MEDIAN
    tests = {path.name: lines(path) for path in (ROOT / "tests").rglob("*.py")}
    assert not {name: length for name, length in tests.items() if length > LONGEST_TEST}


def test_every_file_says_what_it_holds():
    """In its first line, which differs from all others."""
    first = {}
    for module, path in modules().items():
        text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert text, module
        line = textwrap.shorten(text.splitlines()[0], 200)
        assert line not in first, (module, first.get(line))
        first[line] = module


def long_calls(source: str) -> list[int]:
    """Return the lines of calls with more positional arguments than `MOST_POSITIONAL`."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and len([one for one in node.args if not isinstance(one, ast.Starred)]) > MOST_POSITIONAL
    ]


def test_calls_name_their_arguments():
    assert long_calls("f(1, 2, 3, 4)\nf(1, 2, 3, 4, 5)\nf(*a, 1, 2, 3, 4)") == [2]
    found = {module: long_calls(path.read_text("utf-8")) for module, path in modules().items()}
    assert not {module: at for module, at in found.items() if at}


def test_classes_have_names_of_their_own():
    """No two public classes of the package share a name."""
    names: dict[str, str] = {}
    for module, path in modules().items():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert node.name not in names, (node.name, module, names.get(node.name))
                names[node.name] = module
