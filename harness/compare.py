"""Compare runs: a table of what differs and what came out, with its spread over seeds.

python -m harness.compare --experiment baseline
python -m harness.compare --study lr_search --curves curves.png
python -m harness.compare 3f9a 0c71 --against 3f9a
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.cli import entry, flags

if TYPE_CHECKING:
    from harness.analysis.comparison import Comparison
    from harness.cli.compare_flags import CompareSettings


def main(arguments: Sequence[str]) -> int:
    """Print the comparison that the flags ask for; return the exit status."""
    from harness.cli.compare_flags import CompareSettings

    settings: CompareSettings = flags.parse_settings(
        CompareSettings,
        arguments,
        "python -m harness.compare",
        "Compare runs: what differs, what came out, with its spread over seeds.",
    )
    from harness.tracking import store_address

    store_address.check()
    from harness.analysis.comparison import comparisons, nothing_recorded
    from harness.runs.recovery import recover

    recover()
    found = comparisons(settings)
    if not found:
        print(nothing_recorded())
        return 0
    _write(found, settings)
    for number, comparison in enumerate(found):
        if number:
            print()
        _print(comparison, settings)
    return 0


def _write(found: Sequence[Comparison], settings: CompareSettings) -> None:
    """Write the files that are asked for."""
    from harness.analysis import export

    records = [record for comparison in found for record in comparison.shown]
    if settings.csv:
        export.write(settings.csv, "csv", export.records_csv(records))
    if settings.json:
        export.write(settings.json, "json", export.json_text(records))
    if settings.curves:
        from harness.analysis.curves import curves, seen_images
        from harness.figures.comparison_figures import draw_comparison

        first = found[0]
        rows = first.rows[: first.limit]
        kind = settings.curves.suffix.removeprefix(".")
        picture = draw_comparison(curves(rows, first.labels), first.of, seen_images(rows), kind)
        export.write(settings.curves, "curves", picture)


def _print(comparison: Comparison, settings: CompareSettings) -> None:
    """Print one table with what must be said about it; as wide as it is unless on a terminal."""
    from rich.console import Console

    from harness.analysis import table

    columns = comparison.columns(settings.column_names)
    notes = comparison.notes
    console = Console(highlight=False)
    say = functools.partial(console.print, markup=False, soft_wrap=not console.is_terminal)
    say(f"{comparison.heading}\n")
    if settings.markdown:
        print(table.markdown(columns))
    elif not console.is_terminal:
        print(table.plain(columns))
    else:
        if not settings.columns:
            columns, gone = table.narrowed(columns, console.width)
            notes = [*table.about_gone(gone), *notes]
        table.show(columns, console)
    if notes:
        say("\n" + "\n".join(notes))


if __name__ == "__main__":
    entry.enter(main)
