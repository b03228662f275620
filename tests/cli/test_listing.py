"""Lists show every file with its summary; a name is looked up among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base import discovery
from harness.base.errors import BadRequest
from harness.cli import listing


def test_a_list_shows_the_first_line_of_each_docstring(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"""The first.\n\nMore."""\n')
    (tmp_path / "longer.py").write_text("x = (")
    assert listing.with_summaries(["a", "longer"], tmp_path) == (
        "  a       The first.\n  longer  (cannot be read: SyntaxError)"
    )
    assert listing.with_summaries([], tmp_path) == ""


def test_the_first_argument_chooses() -> None:
    assert listing.take_name("experiments", ["lenet", "--lr", "1"], "usage") == (
        "lenet",
        ["--lr", "1"],
    )


@pytest.mark.parametrize("words", [[], ["--lr", "1"], ["-x"]])
def test_a_missing_name_is_answered_with_usage_and_list(words: list[str]) -> None:
    with pytest.raises(BadRequest) as refused:
        listing.take_name("studies", words, "usage: this way")
    message = str(refused.value)
    assert message.startswith("Missing: NAME.\n\nusage: this way\n\nstudies:\n")
    assert [name for name in discovery.names("studies") if f"  {name}  " not in message] == []


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_prints_usage_and_list(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        listing.take_name("experiments", [word], "usage: this way")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: this way\n\nexperiments:\n  baseline")


@pytest.mark.parametrize("name", ["lenett", "", "../lenet", "lenet.py"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="There is no experiment"):
        listing.take_name("experiments", [name], "usage")
