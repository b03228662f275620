"""Open MLflow's pages on everything that was recorded.

python -m harness.ui
python -m harness.ui --experiment baseline --port 5001 --no-browser
"""

from __future__ import annotations

import json
import sys
import urllib.request
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from harness.base import fields
from harness.base.errors import BadRequest, RunFailed, nearest
from harness.base.fields import Interval
from harness.base.privacy import mask
from harness.cli import flags


@dataclass(frozen=True, kw_only=True)
class UiSettings:
    """Where to serve, and what to open."""

    port: Annotated[int, Interval(ge=1024, le=65535)] = 5000
    """Port of this machine to serve on."""
    host: str = "127.0.0.1"
    """Address to serve on; with any other one, other machines see the pages, without a login."""
    experiment: str | None = None
    """Experiment or study whose runs to open; the one with the latest run unless given."""
    no_browser: bool = False
    """Print the address only."""

    def __post_init__(self) -> None:
        fields.check_all(self)


def main(arguments: Sequence[str]) -> int:
    """Serve until Ctrl-C; return the exit status."""
    settings: UiSettings = flags.parse_settings(
        UiSettings, arguments, "python -m harness.ui", "Open MLflow's pages on this project's runs."
    )
    from harness.base.signals import Interrupted
    from harness.tracking import store_address
    from harness.tracking.pages import check_place, is_loopback, serving
    from harness.tracking.store_address import tracking_uri

    store_address.check()
    if tracking_uri().startswith("http"):
        page = tracking_uri().rstrip("/")
        page += _run_list(page, settings.experiment)
        print(f"The runs are recorded on a server, which has the pages: {mask(page)}")
        if not settings.no_browser:
            webbrowser.open(page)
        return 0
    check_place(settings.host, settings.port)
    if settings.experiment and store_address.is_empty():
        raise BadRequest(f"experiment: nothing was recorded yet, {settings.experiment!r} neither.")
    if not is_loopback(settings.host):
        print(
            f"warning: whoever can reach {settings.host} can read, change and delete all runs: "
            "the pages have no login.",
            file=sys.stderr,
        )
    from harness.runs.recovery import clear_up

    clear_up()
    with serving(settings.host, settings.port) as here:
        page = here + _run_list(here, settings.experiment)
        try:
            print(f"MLflow is at {page}\nCtrl-C ends it.", flush=True)
            if not settings.no_browser:
                webbrowser.open(page)
            flags.wait_for_interruption()
        except Interrupted:
            print()
    return 0


def _run_list(address: str, experiment: str | None) -> str:
    """The path of an experiment's run list; of all experiments where there is none.

    A first visit to any other page lands in a mode for language models.

    Raises:
        BadRequest: there is no such experiment.
    """
    found = _post(address, "experiments/search", {"max_results": 1000}).get("experiments", [])
    ids = {entry["name"]: entry["experiment_id"] for entry in found}
    if experiment is None:
        latest = {"max_results": 1, "order_by": ["attributes.start_time DESC"]}
        runs = _post(address, "runs/search", {"experiment_ids": list(ids.values()), **latest}).get(
            "runs"
        )
        if not runs:
            return "/#/experiments?workflowType=machine_learning"
        chosen = runs[0]["info"]["experiment_id"]
    elif experiment in ids:
        chosen = ids[experiment]
    else:
        raise BadRequest(
            f"experiment: there are no runs of {experiment!r}. {nearest(experiment, ids)}"
        )
    return f"/#/experiments/{chosen}/runs?workflowType=machine_learning"


def _post(address: str, method: str, query: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/{method}",
        data=json.dumps(query).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            answer: dict[str, list[dict[str, Any]]] = json.load(reply)
    except (OSError, ValueError) as error:
        raise RunFailed(f"MLflow at {mask(address)} does not answer: {mask(str(error))}") from None
    return answer


if __name__ == "__main__":
    flags.enter(main)
