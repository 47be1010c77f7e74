"""The font of figures' files: one that a PDF embeds fast."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from itertools import chain
from pathlib import Path

FAMILY = "DejaVu Sans"
"""It comes with matplotlib."""
_SMALL = "lmsat Sans"
# Latin, Greek, sub- and superscripts, punctuation, arrows, mathematics, the star.
_LETTERS = (
    *(range(0x20, 0x180), range(0x370, 0x400), range(0x1D00, 0x1DC0), range(0x2000, 0x20C0)),
    *(range(0x2190, 0x2300), range(0x2605, 0x2606)),
)


@cache
def pdf_families() -> list[str]:
    """Return the families of a PDF's text: a part of `FAMILY` with the usual letters, and all of it for others.

    matplotlib takes a font apart for each PDF that it writes: of the whole one that takes longer than all else. The
    part has a name of its own, as the font's licence asks for.
    """
    from fontTools import subset
    from fontTools.ttLib import TTFont
    from matplotlib.font_manager import findfont, fontManager

    font = TTFont(findfont(FAMILY), lazy=True)
    options = subset.Options(layout_features=[], name_IDs=["*"], glyph_names=True, hinting=False)
    options.drop_tables += ["GSUB", "GPOS", "GDEF", "FFTM", "kern", "MATH"]
    part = subset.Subsetter(options)
    part.populate(unicodes=list(chain.from_iterable(_LETTERS)))
    part.subset(font)
    for record in font["name"].names:
        if record.nameID in (1, 3, 4, 16):
            record.string = _SMALL
        elif record.nameID == 6:
            record.string = _SMALL.replace(" ", "")
    folder = tempfile.mkdtemp(prefix="lmsat-font-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "small.ttf"
    font.save(path)
    fontManager.addfont(path)
    return [_SMALL, FAMILY]
