"""The ear of a worker: a Redis transport to which every message in a queue is one and the same ring.

What a message says is not read, only that it came. So whatever stands in the list, be it garbage, another task's name,
or time limits that would kill a child, is at most a look in the database for nothing. Nothing is ever put back either.
"""

import base64
import json
import logging
import uuid
from queue import Empty
from typing import Any

from kombu import transport
from kombu.transport import redis

from service.doorbell import LOOK

_log = logging.getLogger(__name__)


def listen() -> None:
    """Use this ear for Redis and Valkey brokers from now on, in this process."""
    for scheme in ("redis", "rediss"):
        transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"


class Channel(redis.Channel):
    do_restore = False  # at the end, what was taken is not put back: the keeper rings for it

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, RecursionError) as error:
            _log.warning("A message that cannot be read was dropped: %s", error)
            raise Empty from error


class Transport(redis.Transport):
    Channel = Channel

    def _deliver(self, message: object, queue: str) -> None:
        super()._deliver(_ring(queue), queue)  # type: ignore[no-untyped-call]


def _ring(queue: str) -> dict[str, Any]:
    """Return a message as Celery's protocol 2 has it: look in the database for this queue."""
    body = json.dumps([[queue], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    ring_id = str(uuid.uuid4())
    return {
        "body": base64.b64encode(body.encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": LOOK, "id": ring_id, "root_id": ring_id, "ignore_result": True},
        "properties": {
            "correlation_id": ring_id,
            "delivery_tag": ring_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": "base64",
        },
    }
