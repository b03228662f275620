"""Open MLflow's pages on everything that was recorded.

python -m harness.ui
python -m harness.ui --experiment baseline --port 5001 --no-browser
"""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Sequence
from contextlib import nullcontext

from harness.base.errors import BadRequest
from harness.base.privacy import mask
from harness.base.signals import Interrupted
from harness.cli import entry, flags
from harness.tracking import pages, store_address


def main(arguments: Sequence[str]) -> int:
    """Serve until Ctrl-C; return the exit status."""
    from harness.cli.ui_flags import UiSettings

    settings = flags.parse_settings(
        UiSettings, arguments, "python -m harness.ui", "Open MLflow's pages on this project's runs."
    )
    store_address.check_address()
    server = store_address.tracking_uri().rstrip("/")
    if server.startswith("http"):
        page = pages.run_list(pages.Pages(server), settings.experiment)
        print(f"The runs are recorded on a server, which has the pages: {mask(page)}")
        if not settings.no_browser:
            webbrowser.open(page)
        return 0
    port = pages.choose_port(settings.host, settings.port)
    if settings.experiment:
        store_address.check_recorded("experiment")
    if store_address.is_read_only():
        if settings.allow_uploads:
            raise BadRequest(f"allow_uploads: {store_address.described()} may only be read.")
        print(f"{store_address.described()} may only be read: the pages change nothing.")
    for warning in settings.warnings():
        print(f"warning: {warning}", file=sys.stderr)
    from harness.execution.recovery import recover

    recover()
    with pages.serving(
        settings.host,
        port,
        hosts=settings.allowed_hosts,
        with_token=not settings.no_token,
        uploads=settings.allow_uploads,
    ) as served:
        page = pages.run_list(served, settings.experiment)
        try:
            print(f"MLflow is at {page}\nCtrl-C ends it.", flush=True)
            with nullcontext() if settings.no_browser else pages.opened_in_browser(page):
                entry.wait_for_interruption()
        except Interrupted:
            print()
    return 0


if __name__ == "__main__":
    entry.enter(main)
