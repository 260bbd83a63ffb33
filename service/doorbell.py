"""The doorbell: Celery messages whose only content is the queue that a worker should poll in the database.

A message may be lost, duplicated, late or forged without harm, because the job's row is the source of truth. So ringing
never blocks, raises or retries: the keeper rings again for jobs that are still queued.
"""

import logging
import threading
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu.connection import Connection
from kombu.entity import Queue

LOOK = "twoviews.look"
QUEUES = ("train", "data")

_MAX_PENDING = 100  # messages of a queue: with so many unread, all of its workers are busy
_BATCH_SECONDS = 0.05  # after a ring: requests of this time are sent together
_log = logging.getLogger(__name__)


def create_celery_app(broker_url: str) -> Celery:
    """Return the Celery application of senders and workers; every Celery setting of the service is here."""
    app = Celery("twoviews", broker=broker_url, set_as_current=False)
    app.conf.update(_MESSAGES | _BROKER | _WORKER)
    return app


_MESSAGES = {
    "accept_content": ["json"],
    "task_serializer": "json",
    "task_ignore_result": True,
    "task_publish_retry": False,  # the keeper retries
    "task_create_missing_queues": False,  # no queue without workers
    "task_queues": [Queue(name) for name in QUEUES],
    "task_default_queue": QUEUES[0],
    "task_acks_late": False,  # early: the row must not be lost, the message may
    "task_reject_on_worker_lost": False,
    "result_backend": None,
}
_BROKER = {
    "broker_connection_timeout": 2.0,
    "broker_connection_retry": True,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,  # unlimited
    "broker_channel_error_retry": True,
    "broker_transport_options": {
        "socket_timeout": 3.0,
        "socket_connect_timeout": 2.0,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "max_retries": 0,  # of a sender's connection; a worker's follows broker_connection_max_retries
        "ack_emulation": False,  # unacknowledged messages are not kept, so none is redelivered
    },
}
_WORKER = {
    "worker_pool": "prefork",
    "worker_concurrency": 1,
    "worker_disable_prefetch": True,  # take a message only when a process is idle
    "worker_prefetch_multiplier": 0,  # no other limit
    "worker_enable_prefetch_count_reduction": False,
    "worker_cancel_long_running_tasks_on_connection_loss": False,  # a run continues without its broker
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_detect_quorum_queues": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "worker_max_tasks_per_child": None,
    "worker_lost_wait": 0.5,  # there is no result of a killed child to wait for
}


@dataclass(frozen=True, slots=True)
class _Request:
    """Messages to send to one queue: `more` additional ones, and `at_least` pending in total."""

    more: int = 0
    at_least: int = 0


class Doorbell:
    """Sends messages from a background thread; safe to use from any thread, and after a fork."""

    def __init__(self, broker_url: str) -> None:
        self._app = create_celery_app(broker_url)
        self._requests: dict[str, _Request] = {}
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def ring(self, queue: str) -> None:
        """Request one more message to the queue; returns at once, whatever the state of the broker."""
        self._add(queue, more=1)

    def fill(self, queue: str, messages: int) -> None:
        """Request that at least `messages` are pending in the queue; returns at once, too."""
        self._add(queue, at_least=messages)

    def depth(self, queue: str) -> int | None:
        """Return the number of pending messages of the queue; None when the broker does not answer in time."""
        try:
            with self._app.connection_for_write() as connection:
                return _count_pending(connection, queue)
        except Exception as error:  # noqa: BLE001 — for every broker failure the depth is unknown
            _log.debug("The broker does not answer: %s", error)
            return None

    def close(self) -> None:
        """Stop the thread. Pending requests are still sent if the broker answers within a second."""
        with self._change:
            self._closed = True
            self._change.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=1)

    def _add(self, queue: str, more: int = 0, at_least: int = 0) -> None:
        with self._change:
            if self._closed:
                return
            request = self._requests.get(queue, _Request())
            self._requests[queue] = _Request(request.more + more, max(request.at_least, at_least))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
                self._thread.start()
            self._change.notify()

    def _run(self) -> None:
        connection: Connection | None = None
        while requests := self._take_requests():
            try:
                connection = connection or self._app.connection_for_write()
                for queue, request in requests.items():
                    self._send(connection, queue, request)
            except Exception as error:  # noqa: BLE001 — the messages are dropped, and the keeper rings again
                _log.warning("Messages to the broker were not sent: %s", error)
                _close(connection)
                connection = None
            with self._change:
                self._change.wait_for(lambda: self._closed, _BATCH_SECONDS)
        _close(connection)

    def _take_requests(self) -> dict[str, _Request]:
        with self._change:
            self._change.wait_for(lambda: self._requests or self._closed)
            requests, self._requests = self._requests, {}
            return requests

    def _send(self, connection: Connection, queue: str, request: _Request) -> None:
        pending = _count_pending(connection, queue)
        for _ in range(pending, min(max(pending + request.more, request.at_least), _MAX_PENDING)):
            self._app.send_task(LOOK, args=[queue], queue=queue, connection=connection, ignore_result=True)


def _count_pending(connection: Connection, queue: str) -> int:
    declared: Any = Queue(queue)(connection.default_channel).queue_declare()
    return int(declared.message_count)


def _close(connection: Connection | None) -> None:
    try:
        if connection is not None:
            connection.collect(socket_timeout=0.5)
    except Exception as error:  # noqa: BLE001 — the connection is lost already
        _log.debug("While closing the broker connection: %s", error)
