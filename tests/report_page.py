"""Reports as tests read them: parsed pages, and the promise that a page needs no other file."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "input"}


class Parsed(HTMLParser):
    """A page: its tags with their attributes, the text and tables between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.values: list[list[list[str | None]]] = []
        self.commands: list[str] = []
        self.feed(page)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
            self.values.append([])
        elif tag == "tr":
            self.tables[-1].append([])
            self.values[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.values[-1][-1].append(attributes.get("data-value"))
        elif tag == "pre":
            self.commands.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if {"style", "script", "title"} & set(self.open):
            return
        self.text += text
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += text
        if "pre" in self.open:
            self.commands[-1] += text

    def table(self, head: str) -> tuple[list[str], list[list[str]]]:
        """Head and body of the table that has a column of this name."""
        (found,) = (table for table in self.tables if head in table[0])
        return found[0], found[1:]


def check_needs_nothing_else(page: str) -> None:
    for tag, attributes in Parsed(page).tags:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        if tag == "img":
            assert len(attributes["alt"]) > 40
    outside_pictures = re.sub(r"data:image/svg\+xml;base64,[A-Za-z0-9+/=]+", "", page)
    # The address of the local store, in a command.
    outside_pictures = outside_pictures.replace(":-sqlite:///mlruns/mlflow.db}", "")
    assert not re.search(r"https?:|//\w|@import|url\(|fetch\(|import\(", outside_pictures)
