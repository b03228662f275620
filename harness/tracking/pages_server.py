"""MLflow's pages in a process of their own: its application behind the gate, on one port."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.base.channel import Connection, inherited_connection
from harness.tracking.gate import Access, Application, Gate

if TYPE_CHECKING:
    import uvicorn


@dataclass(frozen=True)
class Serving:
    """What the process is told: where to serve, what, and to whom.

    Attributes:
        store: the store's address, which may hold a password.
        folder: where the stored files lie.
    """

    host: str
    port: int
    store: str
    folder: str
    access: Access


def main() -> None:
    """Serve until the other end of the connection closes, or a signal arrives."""
    connection = inherited_connection(sys.argv[1])
    serving: Serving = connection.recv()
    application = Gate(_application(serving), serving.access)

    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(
            application,
            host=serving.host,
            port=serving.port,
            lifespan="off",
            log_level="warning",
            access_log=False,  # it would hold the token
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )
    threading.Thread(target=_end_with, args=(connection, server), daemon=True).start()
    server.run()


def _application(serving: Serving) -> Application:
    # What MLflow's own command sets before it imports the application.
    os.environ |= {
        "_MLFLOW_SERVER_FILE_STORE": serving.store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": serving.folder,
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": serving.folder,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        # The gate knows the hosts.
        "MLFLOW_SERVER_ALLOWED_HOSTS": "*",
        # There are no jobs here; the server would start processes for them.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    if serving.access.reads_only:
        # A connection that stays open would not see what the owner of the store writes.
        os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(serving.store, None, serving.folder)
    application: Application = app
    return application


def _end_with(connection: Connection, server: uvicorn.Server) -> None:
    try:
        connection.recv()
    except (OSError, EOFError):
        server.should_exit = True


if __name__ == "__main__":
    main()
