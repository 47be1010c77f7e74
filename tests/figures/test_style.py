"""How figures look and are written: colours, files of each format, and nothing left behind in matplotlib."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from places import HELPERS
from rank_tables import NO_ACCURACIES, TASKS, accuracies_of, losses_of

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.figures.rank import rank_figure
from lmsat_plugin.figures.style import MARKERS, PALETTE, ShortNumbers, check_suffix, write_figure


def small_figure():
    """Return a figure with lines, bands, error bars and legends."""
    return rank_figure(losses_of(curves=("trained",)), accuracies_of(tasks=TASKS[:1]))


def test_the_first_colours_differ_in_grey():
    luminances = [np.dot([0.2126, 0.7152, 0.0722], np.array(to_rgb(colour)) ** 2.2) for colour in PALETTE[:4]]
    lightness = sorted(116 * y ** (1 / 3) - 16 for y in luminances)
    assert min(b - a for a, b in itertools.pairwise(lightness)) > 15
    assert len(set(PALETTE)) == len(PALETTE)
    assert math.gcd(len(PALETTE), len(MARKERS)) == 1


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([1e4, 2e4, 5e4], ["1e4", "2e4", "5e4"]),
        ([13_000, 13_200, 13_400], ["1.3e4", "1.32e4", "1.34e4"]),
        ([0.5, 100, 1e4], ["0.5", "100", "1e4"]),
    ],
)
def test_no_two_ticks_have_one_label(ticks, labels):
    assert ShortNumbers().format_ticks(ticks) == labels


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF-"), ("a.SVG", b"<?xml")])
def test_files_of_each_format(tmp_path, name, begins):
    for folder in ("one", "other"):
        write_figure(small_figure(), tmp_path / folder / name)
    data = (tmp_path / "one" / name).read_bytes()
    assert data.startswith(begins)
    assert data == (tmp_path / "other" / name).read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == [name]


def test_files_that_cannot_be_written(tmp_path):
    for name in ("a.xyz", "a", "png"):
        with pytest.raises(LmsatError, match=rf"{name} is not a figure's file name.*\.png, \.svg, \.pdf"):
            check_suffix(tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(LmsatError, match="cannot write"):
        write_figure(rank_figure(losses_of(), NO_ACCURACIES), tmp_path / "file" / "a.png")
    with pytest.raises(LmsatError, match="not a figure's file name"):
        write_figure(rank_figure(losses_of(), NO_ACCURACIES), tmp_path / "a.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_state_is_left_behind():
    code = (
        "import sys, matplotlib; before = matplotlib.rcParams.copy();"
        "from rank_tables import *; from lmsat_plugin.figures.rank import rank_figure;"
        "rank_figure(losses_of(), accuracies_of());"
        "sys.exit('matplotlib.pyplot' in sys.modules or matplotlib.rcParams != before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HELPERS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names_with_control_characters_leave_svg_files_xml(tmp_path):
    figure = small_figure()
    figure.axes[0].set_title("a\x01b\x1b[31m\u202e")
    write_figure(figure, tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text("utf-8")
    ElementTree.fromstring(text)
    assert "a\\x01b\\x1b[31m\\u202e" in text
