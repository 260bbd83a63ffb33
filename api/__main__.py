"""The API server: `python -m api`, one process; any number of them can share a database behind a proxy."""

import argparse
import logging
import math
from functools import partial
from typing import Any

import uvicorn

from api.app import create
from api.server import access_log
from api.server.connections import Connections, Limits
from api.server.protocol import HttpProtocol
from service import logs

GRACE_SECONDS = 5


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve the HTTP API.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--uds", help="Unix socket, instead of host and port")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], help="instead of the setting's")
    parser.add_argument(
        "--grace-seconds", type=int, default=GRACE_SECONDS, help="time for requests in progress at shutdown"
    )
    options = parser.parse_args()
    settings = logs.start()
    if options.log_level:
        logging.getLogger().setLevel(options.log_level.upper())
    access_log.set_enabled(settings.access_log)
    protocol: Any = partial(HttpProtocol, connections=Connections(Limits.of(settings)))  # called as the class is
    uvicorn.run(
        partial(create, settings),
        factory=True,
        host=options.host,
        port=options.port,
        uds=options.uds,
        http=protocol,
        timeout_keep_alive=math.ceil(settings.http_idle_seconds),
        forwarded_allow_ips=settings.trusted_proxies,
        access_log=False,  # api.server.access_log
        log_config=None,  # service.logs
        timeout_graceful_shutdown=options.grace_seconds,
    )


if __name__ == "__main__":
    main()
