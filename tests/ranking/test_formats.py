"""The leaderboard as people and spreadsheets read it: every format holds all rows, and names stay text."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser

import pandas as pd

from lmsat_plugin.ranking.formats import FORMATS, as_csv, as_html, as_markdown


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_every_format(board, hostile_name):
    values = pd.read_csv(io.StringIO(as_csv(board)))
    assert values.loss.tolist() == [row["loss"] for row in board.rows]
    assert hostile_name in values.model.tolist()
    assert json.loads(FORMATS["json"](board))["rows"] == list(board.rows)
    page = _Page()
    page.feed(as_html(board))
    assert "script" not in page.tags
    assert hostile_name in page.texts
    assert page.tags.count("tr") == 1 + len(board.rows)
    assert page.tags.count("td") + page.tags.count("th") == (1 + len(board.rows)) * len(board.columns)
    for part in ("http://", "https://", "src=", "url("):
        assert part not in as_html(board)
    lines = [line for line in as_markdown(board).splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(board.columns) + 1}
    assert "<script" not in as_markdown(board)
