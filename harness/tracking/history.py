"""Reading back what was recorded."""

from __future__ import annotations

from harness.tracking.store import Store


def run_history(store: Store, run_id: str) -> dict[str, list[float]]:
    """Every metric of a run as its values, by step."""
    client = store.client
    return {
        name: [
            metric.value
            for metric in sorted(client.get_metric_history(run_id, name), key=lambda m: m.step)
        ]
        for name in client.get_run(run_id).data.metrics
    }
