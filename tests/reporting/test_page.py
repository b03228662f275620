"""A page shows its blocks, needs no other file, and never obeys the words in it."""

from __future__ import annotations

import math
import re

import pytest
from conftest import HOSTILE
from report_page import Parsed, check_needs_nothing_else

from harness.reporting.page import (
    Block,
    Checklist,
    Commands,
    Fact,
    Item,
    Page,
    Picture,
    Pictures,
    Section,
    Table,
    TableColumn,
    Text,
    Value,
    VerdictBox,
    WarningList,
    render,
)


def page_of(*blocks: Block, title: str = "title") -> str:
    return render(Page(title, "kind", "question?", [], [Section("Some part", blocks)]))


def test_every_block_is_on_the_page() -> None:
    text = page_of(
        Text("first\n\nsecond"),
        VerdictBox("better"),
        WarningList(["beware"]),
        Commands(["one", "two"]),
        Checklist([Item("Seeds", "3", True), Item("Code", "unknown", False)]),
        Pictures([Picture(b"<svg/>", "what it shows, in so many words that they are enough")]),
        Table("caption", [TableColumn("a", ".2f"), TableColumn("b")], [[0.125, None]]),
    )
    check_needs_nothing_else(text)
    page = Parsed(text)
    assert re.findall("<p>(.*)</p>", text) == ["first", "second"]
    assert '<p class="verdict">better</p>' in text
    assert "Warning: beware." in page.text
    assert page.commands == ["one\ntwo"]
    checklist, table = page.tables
    assert checklist == [["✓ yes", "Seeds", "3"], ["! open", "Code", "unknown"]]
    assert table == [["a", "b"], ["0.12", "—"]]
    assert '<a href="#some-part">Some part</a>' in text
    assert '<section id="some-part">' in text


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "—"), (math.nan, "—"), (0.12346, "0.1235"), (3, "3"), (True, "True"), ("x", "x")],
)
def test_a_cell_in_words(value: float | str | None, words: str) -> None:
    assert TableColumn("name", ".4f").words(value) == words


def test_only_columns_of_numbers_are_numeric() -> None:
    rows: list[list[Value]] = [[1, "a", None, True, None], [0.5, 2, None, False, 3]]
    table = Table("caption", [TableColumn(name) for name in "abcde"], rows)
    assert [table.is_numeric(column) for column in range(5)] == [True, False, False, False, True]


def test_a_sortable_table_keeps_whole_numbers_to_sort_by() -> None:
    table = Table("caption", [TableColumn("a", ".1f")], [[0.123456], [None]], sortable=True)
    page = Parsed(page_of(table))
    assert page.tables == [[["a"], ["0.1"], ["—"]]]
    assert page.values == [[[None], ["0.123456"], [None]]]


def test_no_word_turns_the_page_around_or_is_invisible() -> None:
    evil = "a\u202eb\x1b\u2066"
    table = Table(evil, [TableColumn(evil)], [[evil]], sortable=True)
    text = page_of(Text(evil), Commands(["one", evil]), table, title=evil)
    assert not {"\u202e", "\x1b", "\u2066"} & set(text)
    assert r"a\u202eb\x1b\u2066" in text
    assert "one\n" in text


def test_words_are_shown_and_never_obeyed() -> None:
    hostile = Page(
        f"{HOSTILE}\"'&",
        HOSTILE,
        HOSTILE,
        [Fact(HOSTILE, HOSTILE, HOSTILE)],
        [
            Section(
                HOSTILE,
                [
                    *(Text(HOSTILE), WarningList([HOSTILE]), Commands([HOSTILE])),
                    *(VerdictBox(HOSTILE), Checklist([Item(HOSTILE, HOSTILE)])),
                    Table(
                        HOSTILE,
                        [TableColumn(HOSTILE)],
                        [[f'" onclick="{HOSTILE}']],
                        sortable=True,
                    ),
                ],
            )
        ],
    )
    text = render(hostile)
    check_needs_nothing_else(text)
    assert HOSTILE not in text
    assert HOSTILE in Parsed(text).text
    assert [name for name, _ in Parsed(text).tags].count("script") == 1
