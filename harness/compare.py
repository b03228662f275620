"""Compare runs: a table of what differs and what came out, with its spread over seeds.

python -m harness.compare --experiment baseline
python -m harness.compare --study lr_search --curves curves.png
python -m harness.compare 3f9a 0c71 --against 3f9a
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli import entry, flags


def main(arguments: Sequence[str]) -> int:
    """Print the comparison that the flags ask for; return the exit status."""
    from harness.analysis import table
    from harness.analysis.comparison import comparisons, nothing_recorded
    from harness.cli.compare_files import check_files, write_files
    from harness.cli.compare_flags import CompareSettings
    from harness.cli.output import print_text
    from harness.execution.recovery import recover
    from harness.tracking.reader import open_reader

    settings: CompareSettings = flags.parse_settings(
        CompareSettings,
        arguments,
        "python -m harness.compare",
        "Compare runs: what differs, what came out, with its spread over seeds.",
    )
    check_files(settings)
    reader = open_reader()
    recover()
    found = comparisons(
        settings.query,
        reader,
        against=settings.against,
        sort=settings.sort,
        reverse=settings.reverse,
        limit=settings.limit,
        mixed_data=settings.mixed_data,
    )
    if not found:
        print_text(nothing_recorded(reader))
        return 0
    write_files(settings, found, reader)
    for number, comparison in enumerate(found):
        print("\n" if number else "", end="")
        table.print_table(
            comparison.heading,
            comparison.columns(settings.column_names),
            comparison.notes,
            as_markdown=settings.markdown,
            may_narrow=not settings.columns,
        )
    return 0


if __name__ == "__main__":
    entry.enter(main)
