"""The figures' files: large figures are shown as pictures, and figures of one name have files of their own."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from lmsat_plugin.hookspecs import ReportFigure
from lmsat_plugin.page import figure_files


def test_large_figures_are_shown_as_pictures(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (300, 2000, 3), dtype=np.uint8)
    for name, size in (("small", 1000), ("large", figure_files.LARGE + 300_000)):
        (tmp_path / f"{name}.svg").write_bytes(b"x" * size)
        Image.fromarray(noise if name == "large" else noise[:9, :9]).save(tmp_path / f"{name}.png")
    figures = {name: ReportFigure(name, name, "", "", draw=Figure) for name in ("small", "large")}
    images = figure_files._images(figures, tmp_path)
    assert images["small"].startswith("data:image/svg+xml;base64,")
    assert images["large"].startswith("data:image/png;base64,")
    assert list(images) == ["small", "large"]
    # Far too much in all: what is not smaller as a picture stays.
    monkeypatch.setattr(figure_files, "ALL", 10)
    assert figure_files._images({"small": figures["small"]}, tmp_path)["small"].startswith("data:image/png")


def test_figures_of_one_name_have_files_of_their_own():
    assert figure_files._free("a", {"b"}) == "a"
    assert figure_files._free("a", {"a", "a-2"}) == "a-3"
