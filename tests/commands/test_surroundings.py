"""Settings that users made for other programs do not reach the harness's work."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import NOWHERE, QUICK, Checkout, Server

RUN = ("harness.run", "baseline", *QUICK)
STUDY = ("harness.study", "lr_search", *QUICK, "--n-trials", "2", "--confirm-seeds", "2")


@pytest.mark.parametrize("words", [RUN, STUDY])
def test_warnings_as_errors_and_latex_change_nothing(
    checkout: Checkout, words: tuple[str, ...]
) -> None:
    (checkout.root / "matplotlibrc").write_text("text.usetex: True\nbackend: TkAgg\n")
    ended = checkout.command(*words, changes={"PYTHONWARNINGS": "error"})
    assert (ended.status, ended.errors) == (0, "")
    (run,) = [run for run in checkout.runs() if "mlflow.parentRunId" not in run.data.tags]
    with checkout.opened() as client:
        figures = [file.path for file in client.list_artifacts(run.info.run_id, "figures")]
    assert any(path.endswith(".png") for path in figures)
    assert "harness.incomplete" not in run.data.tags
    shown = checkout.command("harness.compare", changes={"PYTHONWARNINGS": "error"})
    assert (shown.status, shown.errors) == (0, "")


def test_a_proxy_is_not_asked_for_a_server_on_this_machine(
    checkout: Checkout, tmp_path: Path
) -> None:
    server = Server.new(tmp_path / "server")
    server.start()
    try:
        proxied = {name: NOWHERE for name in ("http_proxy", "HTTP_PROXY", "all_proxy")}
        ended = checkout.run(
            *("baseline", *QUICK, "--no-figures"),
            changes={**proxied, "MLFLOW_TRACKING_URI": server.uri},
        )
        assert ended.status == 0, ended.errors
        assert "is away" not in ended.errors
        pages = checkout.command(
            *("harness.ui", "--no-browser"),
            changes={**proxied, "MLFLOW_TRACKING_URI": server.uri},
        )
        assert (pages.status, pages.errors) == (0, "")
    finally:
        server.stop()
