"""The API server: `python -m api`, one process; any number of them can share a database behind a proxy."""

import argparse
import math
from functools import partial
from typing import Any

import uvicorn

from api.app import create
from api.prometheus.requests import RequestMetrics
from api.server.connections import Connections, Limits
from api.server.protocol import HttpProtocol
from service.settings import load_settings

GRACE_SECONDS = 5


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve the HTTP API.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--uds", help="Unix socket, instead of host and port")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument(
        "--grace-seconds", type=int, default=GRACE_SECONDS, help="time for requests in progress at shutdown"
    )
    options = parser.parse_args()
    settings = load_settings()
    metrics = RequestMetrics()
    connections = Connections(Limits.of(settings))
    protocol: Any = partial(HttpProtocol, connections=connections, metrics=metrics)  # called as the class is
    uvicorn.run(
        partial(create, settings, metrics),
        factory=True,
        host=options.host,
        port=options.port,
        uds=options.uds,
        http=protocol,
        timeout_keep_alive=math.ceil(settings.http_idle_seconds),
        forwarded_allow_ips=settings.trusted_proxies,
        access_log=False,
        log_level=options.log_level,
        timeout_graceful_shutdown=options.grace_seconds,
    )


if __name__ == "__main__":
    main()
