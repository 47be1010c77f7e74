"""The figures' files: large figures are shown as pictures, and figures of one name have files of their own."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure
from PIL import Image

from lmsat_plugin.page import figure_files


def test_large_figures_are_shown_as_pictures(monkeypatch):
    svgs = {"small": b"x" * 1000, "large": b"x" * (figure_files.LARGE + 1)}
    images = figure_files._images(svgs, lambda name: b"y" * 900)
    assert images["small"].startswith("data:image/svg+xml;base64,")
    assert images["large"].startswith("data:image/png;base64,")
    assert list(images) == ["small", "large"]
    # Far too much in all: what is not smaller as a picture stays.
    monkeypatch.setattr(figure_files, "ALL", 10)
    assert figure_files._images({"small": svgs["small"]}, lambda name: b"y" * 900)["small"].startswith("data:image/png")
    assert "svg" in figure_files._images({"small": svgs["small"]}, lambda name: b"y" * 1001)["small"]


def test_pictures_have_fewer_pixels():
    drawing = Figure(figsize=(20, 2), dpi=200)
    drawing.add_subplot().plot([1, 2])
    with Image.open(BytesIO(figure_files._small_png(drawing))) as image:
        assert image.size == (1200, 120)
        assert image.mode == "P"


def test_figures_of_one_name_have_files_of_their_own():
    assert figure_files._free("a", {"b"}) == "a"
    assert figure_files._free("a", {"a", "a-2"}) == "a-3"
