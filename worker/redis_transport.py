"""A Redis transport for workers: delivers every message of a queue as the same `look` task.

A message's content is never read. So garbage, another task's name, or time limits that would kill a child cost at most
one database query. No message is ever restored to its queue.
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


def register() -> None:
    """Use this transport for Redis and Valkey brokers in this process."""
    for scheme in ("redis", "rediss"):
        transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"


class Channel(redis.Channel):
    do_restore = False  # unprocessed messages are not restored: the keeper rings again

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, RecursionError) as error:
            _log.warning("Dropped a message that cannot be read: %s", error)
            raise Empty from error


class Transport(redis.Transport):
    Channel = Channel

    def _deliver(self, message: object, queue: str) -> None:
        super()._deliver(_look_message(queue), queue)  # type: ignore[no-untyped-call]


def _look_message(queue: str) -> dict[str, Any]:
    """Return the message, in Celery's protocol 2, of a `look` task for this queue."""
    body = json.dumps([[queue], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    task_id = str(uuid.uuid4())
    return {
        "body": base64.b64encode(body.encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"lang": "py", "task": LOOK, "id": task_id, "root_id": task_id, "ignore_result": True},
        "properties": {
            "correlation_id": task_id,
            "delivery_tag": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": "base64",
        },
    }
