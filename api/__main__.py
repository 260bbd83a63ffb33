"""The API server: `python -m api`, one process; any number of them can share a database behind a proxy."""

import argparse
import logging
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from api.app import create
from api.prometheus.requests import RequestMetrics
from api.server import access_log
from api.server.connections import Connections, Limits
from api.server.drain import Drain
from api.server.protocol import HttpProtocol
from api.server.server import Server
from service import logs
from service.db import revisions

STARTUP_FAILURE = 3  # the exit code; uvicorn's


def main() -> int:
    """Serve until SIGINT or SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve the HTTP API.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--uds", help="Unix socket, instead of host and port")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], help="instead of the setting's")
    parser.add_argument("--grace-seconds", type=float, help="instead of the setting's, for requests in progress")
    options = parser.parse_args()
    settings = logs.start()
    revisions.require_newest(settings.database)
    if options.log_level:
        logging.getLogger().setLevel(options.log_level.upper())
    access_log.set_enabled(settings.access_log)
    metrics, drain = RequestMetrics(), Drain()
    connections = Connections(Limits.of(settings))
    protocol: Any = partial(HttpProtocol, connections=connections, metrics=metrics)  # called as the class is
    grace_seconds = settings.http_grace_seconds if options.grace_seconds is None else options.grace_seconds
    config = uvicorn.Config(
        partial(create, settings, metrics, drain),
        factory=True,
        host=options.host,
        port=options.port,
        uds=options.uds,
        http=protocol,
        timeout_keep_alive=math.ceil(settings.http_idle_seconds),
        forwarded_allow_ips=settings.trusted_proxies,
        access_log=False,  # api.server.access_log
        log_config=None,  # service.logs
        timeout_graceful_shutdown=grace_seconds,  # type: ignore[arg-type]  # passed to asyncio.wait_for
    )
    server = Server(config, drain, settings.http_drain_seconds)
    server.run()
    if options.uds:
        Path(options.uds).unlink(missing_ok=True)
    return 0 if server.started else STARTUP_FAILURE


if __name__ == "__main__":
    sys.exit(main())
