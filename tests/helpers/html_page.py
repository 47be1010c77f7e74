"""A report's page, taken apart by the standard library's parser."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """What a page holds: elements with their attributes, rows of tables by section, all text outside scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.links: list[str] = []
        """Of all rows."""
        self.charts: dict[str, Any] = {}
        """What the charts draw."""
        self.text = ""
        self._section, self._inside = "", ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag == "section" and "table" in (attributes.get("class") or "").split():
            self._section = attributes["id"]
            self.tables[self._section] = []
        if tag == "tr":
            self.tables[self._section].append([])
        if tag in ("td", "th"):
            self.tables[self._section][-1].append("")
        if tag in ("td", "th", "script", "style"):
            self._inside = (
                attributes.get("id") if tag == "script" and "id" in attributes else attributes.get("type") or tag
            )

    def handle_endtag(self, tag):
        if tag in ("tr", "script", "style"):
            self._inside = ""

    def handle_data(self, data):
        if self._inside in ("td", "th") and data.strip():
            self.tables[self._section][-1][-1] += data
        if self._inside == "chart-data":
            self.charts = json.loads(data)
        elif self._inside == "application/json":
            # All rows, of which the first are elements, too.
            rows = json.loads(data)
            texts = [[cell if isinstance(cell, str) else cell[0] for cell in row] for row in rows]
            self.links += [cell[1] for row in rows for cell in row if not isinstance(cell, str)]
            header, *shown = self.tables[self._section]
            assert shown == texts[: len(shown)]
            self.tables[self._section] = [header, *texts]
        elif self._inside not in ("script", "style"):
            self.text += data

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def column(self, table, name):
        header, *rows = self.tables[table]
        return [row[header.index(name)] for row in rows]
