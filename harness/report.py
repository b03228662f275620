"""Write a report of a study or an experiment, one HTML page that needs no other file.

python -m harness.report NAME [--out report.html]
python -m harness.report lr_search
python -m harness.report baseline --out baseline.html
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.base import signals
from harness.cli import entry, flags, output
from harness.tracking import store_address


def main(arguments: Sequence[str]) -> int:
    """Report on the named study or experiment; return the exit status."""
    from harness.cli.report_flags import ReportSettings

    settings = flags.parse_settings(
        ReportSettings,
        arguments,
        "python -m harness.report",
        "Write one HTML page: the answer with its uncertainty, curves, every run in a table that "
        "sorts, the checklist of reproducibility, and the commands that repeat it.",
    )
    output.check_writable("out", settings.out)
    store_address.check_address()
    # Libraries swallow an interruption in the middle of their import, and then fail.
    with signals.deferred():
        from harness.execution.recovery import recover
        from harness.reporting.building import build

    recover()
    report = build(settings.name, settings.storage)
    output.write_output("out", settings.out, report.page)
    output.print_text(f"{settings.out}: the report of the {report.kind} {settings.name}.")
    if report.run_id:
        print(f"It is also kept as report.html with the study's run.\nrun {report.run_id}")
    elif report.kind == "study":
        print("The study's run keeps no copy: the store may only be read.")
    return 0


if __name__ == "__main__":
    entry.enter(main)
