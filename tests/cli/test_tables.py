"""Tables for people: in parts on a terminal, whole in a file, and text that is not taken for markup."""

from __future__ import annotations

import re

import pytest

from lmsat_plugin.cli.tables import print_table

COLUMNS = ["rank", "model", *(f"quantity {index}" for index in range(8))]


def tables_on(monkeypatch, capsys, width: int | None, rows: list) -> list[str]:
    """Return the lines that `print_table` prints on a terminal of a width, or into a file."""
    monkeypatch.setenv("NO_COLOR", "1")
    if width is not None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(width))
    print_table("A title", COLUMNS, rows)
    return [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("width", [40, 60, 100, 300])
def test_wide_tables_come_in_parts_on_a_terminal(monkeypatch, capsys, width):
    rows = [[index, f"some-model-{index}", *(index + quantity / 8 for quantity in range(8))] for index in range(3)]
    lines = tables_on(monkeypatch, capsys, width, rows)
    assert max(map(len, lines)) <= width
    headings = [line for line in lines if "model  " in line and "some" not in line]
    assert " ".join(" ".join(headings).split()).replace(" model", "").count("quantity") == 8
    for index in range(3):
        own = [line for line in lines if f"some-model-{index}" in line]
        assert len(own) == len(headings)
        values = " ".join(own).replace(f"some-model-{index}", "").split()
        assert values == [f"{index}", *(f"{index + quantity / 8:.4g}" for quantity in range(8))]


def test_long_tables_stay_whole(monkeypatch, capsys):
    rows = [[index, "a name", *["some words that go on"] * 8] for index in range(60)]
    lines = tables_on(monkeypatch, capsys, 100, rows)
    assert max(map(len, lines)) <= 100
    assert sum("rank" in line for line in lines) == 1


def test_tables_in_a_file_are_as_wide_as_they_need(monkeypatch, capsys):
    lines = tables_on(monkeypatch, capsys, None, [[1, "m" * 90, *["w" * 40] * 8]])
    assert len(lines) == 6
    assert any(line.split() == ["1", "m" * 90, *["w" * 40] * 8] for line in lines)


def test_names_are_no_markup(capsys):
    print_table("A [bold]title[/]", ["a [red]name", "value"], [["[/] m [b]", 1], ["n", None]])
    printed = capsys.readouterr().out
    for text in ("A [bold]title[/]", "a [red]name", "[/] m [b]"):
        assert text in printed
    assert "None" not in printed
