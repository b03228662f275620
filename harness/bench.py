"""Time the plain script and the harness in turn, on this machine and data.

    python -m harness.bench --dataset mnist
    python -m harness.bench --dataset mnist --study
    python -m harness.bench --compare

Prints medians with their range, ratios and the machine. All numbers come from this one run.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli import entry, flags


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and print its table; return the exit status."""
    from harness.cli.bench_flags import BenchSettings

    settings = flags.parse_settings(
        BenchSettings,
        arguments,
        "python -m harness.bench",
        "Time the plain script and the harness in turn, on this machine and data.",
    )
    from harness.benchmark.compare_timing import time_comparison
    from harness.benchmark.run_timing import time_runs
    from harness.benchmark.study_timing import time_studies
    from harness.training.builtin_datasets import data_root

    if settings.compare:
        print(time_comparison(settings))
        return 0
    root = data_root(settings.data_root).resolve()
    print(time_studies(settings, root) if settings.study else time_runs(settings, root))
    return 0


if __name__ == "__main__":
    entry.enter(main)
