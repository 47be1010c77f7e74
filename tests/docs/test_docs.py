"""The documentation: nothing in it is stale, dangling, or a command that there is not."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml
from documentation import DOCS, PAGES, without_code
from places import ROOT

from lmsat_plugin.cli.guide import COMMANDS
from lmsat_plugin.cli.parser import build_parser

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {command.name for command in COMMANDS}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def load(name: str):
    """Return a script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def parser_of(name: str):
    [choices] = [action.choices for action in build_parser()._actions if isinstance(action.choices, dict)]
    return choices[name]


def section(name: str) -> str:
    """Return what docs/commands.md says of a command."""
    text = (DOCS / "commands.md").read_text("utf-8")
    return re.split(r"^##+ ", text.split(f"\n### lmsat {name}\n")[1], flags=re.MULTILINE)[0]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    text = without_code(page)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_commands_page_is_not_stale():
    page = load("generate").page()
    assert page == (DOCS / "commands.md").read_text("utf-8"), "run `python docs/generate.py`"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_commands_page_has_what_help_shows(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setenv("NO_COLOR", "1")
    text = section(name)
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", parser_of(name).format_help())) - {"--help"}
    assert shown == set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def test_commands_page_has_every_task():
    text = (DOCS / "commands.md").read_text("utf-8")
    tasks = {path.stem for path in (ROOT / "tasks").glob("lmsat[_-]*.yaml")}
    assert len(tasks) >= 8
    assert tasks == set(re.findall(r"^### (lmsat[_-][\w-]+)$", text, re.MULTILINE))


@pages
def test_relative_links_point_to_something(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pages
def test_prose_names_commands_that_there_are(page):
    text = without_code(page)
    assert set(re.findall(r"`lmsat ([a-z]+)", text)) <= NAMES


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    named = re.findall(r"([\w-]+\.md)\b", str(yaml.safe_load(text)["nav"]))
    assert sorted(named) == sorted(["benchmarks.md", *(page.name for page in DOCS.glob("*.md"))])


def test_the_site_is_built_without_a_warning(tmp_path):
    """As `make docs` does: a link or an anchor that leads nowhere is an error."""
    pytest.importorskip("material", reason="needs the extra `docs`")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = [page.relative_to(tmp_path / "site") for page in (tmp_path / "site").rglob("index.html")]
    assert len(pages) == len(list(DOCS.glob("*.md"))) + 1, "and the benchmarks"


def test_tour_shows_every_command_and_the_runs_that_it_names():
    tour, text = load("tour"), (DOCS / "tour.md").read_text("utf-8")
    assert {stop.name for stop in tour.STOPS} == NAMES
    assert re.findall(r"^\$ (.+)$", text, re.MULTILINE) == [stop.command for stop in tour.STOPS]
    without = tour.page(dict.fromkeys((stop.command for stop in tour.STOPS), ""))
    missing = [line for line in without.splitlines() if line and line not in text.splitlines()]
    assert not missing, "run `python docs/tour.py FOLDER`"


def test_tour_leaves_out_the_middle_of_long_outputs():
    shorten = load("tour").shorten
    assert shorten(list("abcdef"), 2, 1) == ["a", "b", "[...]", "f"]
    assert shorten(list("abc"), 2, 1) == shorten(list("abc"), 9, 0) == ["a", "b", "c"]


def test_the_site_links_to_nothing_outside_its_pages():
    hook = load("hooks").on_page_markdown
    assert hook("[b](../c/d.md) [d](../c/d) [e](f.md#g)") == "b (`c/d.md`) `c/d` [e](f.md#g)"
    assert hook("[b](../benchmarks/README.md#report)") == "[b](benchmarks.md#report)"
    for page in DOCS.glob("*.md"):
        assert "](../" not in hook(page.read_text("utf-8"), page=None, config=None, files=None)
