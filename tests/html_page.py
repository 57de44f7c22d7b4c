"""Read a page with the standard library's parser: tables, charts, and everything that could reach a network."""

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

VOID = {"meta", "link", "br", "img", "input", "wbr"}
Cell = dict[str, str]


class HtmlPage(HTMLParser):
    """The parts of a page that tests look at.

    Attributes:
        tags: each element's name and attributes, in order.
        text: the text outside of style and script.
        tables: by caption, the rows below the header; each cell has its text under "text", and its attributes.
        charts: by the title of its figure, a chart's attributes, and the points of each line by its name.
        blocks: the contents of style and script elements.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_bytes().decode("utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.blocks: list[tuple[str, str]] = []
        self.tables: dict[str, list[list[Cell]]] = {}
        self.charts: dict[str, tuple[dict[str, str], dict[str, list[tuple[float, float]]]]] = {}
        self.text = ""
        self._open: list[str] = []
        self._caption = self._title = ""
        self._rows: list[list[Cell]] = []
        self.feed(self.source)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append((tag, found))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append({"text": "", **found})
        elif tag == "br" and self._rows and self._rows[-1] and {"td", "th"} & set(self._open):
            self._rows[-1][-1]["text"] += "\n"
        elif tag == "strong":
            self._title = ""
        elif tag == "svg" and found.get("class") == "chart":
            self.charts[self._title] = (found, {})
        elif tag == "polyline":
            pairs = (pair.split(",") for pair in found["points"].split())
            self.charts[self._title][1][found["data-name"]] = [(float(x), float(y)) for x, y in pairs]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "table":
            self.tables[self._caption.partition(" Bars are")[0].strip()] = self._rows[1:]

    def handle_data(self, data: str) -> None:
        inside = set(self._open)
        if inside & {"style", "script"}:
            self.blocks.append((self._open[-1], data))
            return
        self.text += data
        if "caption" in inside:
            self._caption += data
        elif inside & {"td", "th"} and self._rows:
            self._rows[-1][-1]["text"] += data
        if "strong" in inside:
            self._title += data

    def row(self, caption: str, name: str) -> list[Cell]:
        """The row of a table whose first cell is `name`."""
        (found,) = (row for row in self.tables[caption] if row[0]["text"] == name)
        return found

    def line(self, title: str, name: str = "") -> list[tuple[float, float]]:
        """The points of a chart's line, in the chart's data."""
        attributes, lines = self.charts[title]
        left, top, right, bottom = map(float, attributes["data-area"].split())
        x0, x1, y0, y1 = map(float, attributes["data-range"].split())
        return [
            (x0 + (x - left) / (right - left) * (x1 - x0), y0 + (bottom - y) / (bottom - top) * (y1 - y0))
            for x, y in lines[name]
        ]

    def check(self) -> None:
        """Check what holds for each page: no way to a network, its policy, and what assistive technology needs."""
        for tag, attributes in self.tags:
            assert not attributes.get("src", "data:").replace("data:image/", "data:").startswith(("http", "//", "/"))
            for name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href"):
                assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
            assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
            assert tag not in ("iframe", "object", "embed", "base", "form")
            if tag == "th":
                assert attributes["scope"] in ("row", "col")
            if tag == "img":
                assert attributes["alt"]
            if tag == "svg":
                assert attributes.get("aria-hidden") == "true" or (attributes["role"], attributes["aria-label"])
        policy = next(of["content"] for tag, of in self.tags if of.get("http-equiv") == "Content-Security-Policy")
        directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
        assert directives["default-src"] == "'none'"
        assert directives["img-src"] == "data:"
        for kind in ("style", "script"):
            content = "".join(text for tag, text in self.blocks if tag == kind)
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert directives[f"{kind}-src"] == f"'sha256-{digest}'"
            assert "http" not in content
            assert "url(" not in content
            assert "import" not in content
        names = [tag for tag, _ in self.tags]
        assert names.count("h1") == names.count("main") == names.count("title") == 1
        levels = [int(tag[1]) for tag in names if re.fullmatch("h[1-6]", tag)]
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert names.count("caption") == names.count("table")
        assert next(of for tag, of in self.tags if tag == "html")["lang"] == "en"
        ids = [of["id"] for _, of in self.tags if "id" in of]
        assert len(ids) == len(set(ids))

    def measured(self, row: list[Cell]) -> Iterator[tuple[str, str, str]]:
        """Value, low and high of each metric in a row, with four decimals; "" if it cannot be computed."""
        for cell in row:
            if "data-value" in cell:
                yield cell["data-value"], cell.get("data-low", ""), cell.get("data-high", "")
