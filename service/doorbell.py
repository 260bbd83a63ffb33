"""The doorbell: Celery messages that say only "look in the database for queue Q".

A message may be lost, doubled, late or forged without harm, because the row is the truth. So ringing never waits, never
raises and never retries: the keeper rings again for whatever is still queued.
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

_MOST_UNHEARD = 100  # so many messages lie unheard in a queue: every worker of it is busy, one more tells nobody
_REST_SECONDS = 0.05  # after a ring: what is asked for meanwhile is rung for together, and costs one look
_log = logging.getLogger(__name__)


def celery_app(broker_url: str) -> Celery:
    """Return the Celery application that ringers and workers share; every Celery setting of the service is here."""
    app = Celery("twoviews", broker=broker_url, set_as_current=False)
    app.conf.update(_MESSAGES | _BROKER | _WORKER)
    return app


_MESSAGES = {
    "accept_content": ["json"],
    "task_serializer": "json",
    "task_ignore_result": True,
    "task_publish_retry": False,  # the keeper is the retry
    "task_create_missing_queues": False,  # no message makes a queue that nobody hears
    "task_queues": [Queue(name) for name in QUEUES],
    "task_default_queue": QUEUES[0],
    "task_acks_late": False,  # early: the row, not the message, is what must not be lost
    "task_reject_on_worker_lost": False,
    "result_backend": None,
}
_BROKER = {
    "broker_connection_timeout": 2.0,
    "broker_connection_retry": True,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,  # for ever
    "broker_channel_error_retry": True,
    "broker_transport_options": {
        "socket_timeout": 3.0,
        "socket_connect_timeout": 2.0,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "max_retries": 0,  # of a ringer's connection; a worker's follows broker_connection_max_retries
        "ack_emulation": False,  # nothing unacknowledged is kept, so no message ever comes back
    },
}
_WORKER = {
    "worker_pool": "prefork",
    "worker_concurrency": 1,
    "worker_disable_prefetch": True,  # take a message only when there is a free hand
    "worker_prefetch_multiplier": 0,  # no second limit beside that one
    "worker_enable_prefetch_count_reduction": False,
    "worker_cancel_long_running_tasks_on_connection_loss": False,  # a run outlives its broker
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_detect_quorum_queues": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "worker_max_tasks_per_child": None,
    "worker_lost_wait": 0.5,  # a killed child's result is not waited for: there is none
}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked of one queue: so many rings more, and so many at least."""

    more: int = 0
    at_least: int = 0


class Doorbell:
    """Rings for queues from a thread of its own; safe to use from any thread, and after a fork."""

    def __init__(self, broker_url: str) -> None:
        self._app = celery_app(broker_url)
        self._wanted: dict[str, _Wanted] = {}
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def ring(self, queue: str) -> None:
        """Ask that one more worker of the queue look; returns at once, whatever the broker does."""
        self._want(queue, more=1)

    def fill(self, queue: str, rings: int) -> None:
        """Ask that at least so many rings lie unheard in the queue; returns at once, too."""
        self._want(queue, at_least=rings)

    def depth(self, queue: str) -> int | None:
        """Return how many messages lie unheard in the queue; None when the broker does not answer in time."""
        try:
            with self._app.connection_for_write() as connection:
                return _depth(connection, queue)
        except Exception as error:  # noqa: BLE001 — whatever is wrong with the broker, the answer is "unknown"
            _log.debug("The broker does not answer: %s", error)
            return None

    def close(self) -> None:
        """Ring no more. What was asked for just now is still rung if the broker answers quickly."""
        with self._change:
            self._closed = True
            self._change.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=1)

    def _want(self, queue: str, more: int = 0, at_least: int = 0) -> None:
        with self._change:
            if self._closed:
                return
            wanted = self._wanted.get(queue, _Wanted())
            self._wanted[queue] = _Wanted(wanted.more + more, max(wanted.at_least, at_least))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._ring_for_ever, name="doorbell", daemon=True)
                self._thread.start()
            self._change.notify()

    def _ring_for_ever(self) -> None:
        connection: Connection | None = None
        while asked := self._next():
            try:
                connection = connection or self._app.connection_for_write()
                for queue, wanted in asked.items():
                    self._send(connection, queue, wanted)
            except Exception as error:  # noqa: BLE001 — the bell is dropped, and the keeper rings again
                _log.warning("The doorbell is not heard: %s", error)
                _hang_up(connection)
                connection = None
            with self._change:
                self._change.wait_for(lambda: self._closed, _REST_SECONDS)
        _hang_up(connection)

    def _next(self) -> dict[str, _Wanted]:
        with self._change:
            self._change.wait_for(lambda: self._wanted or self._closed)
            asked, self._wanted = self._wanted, {}
            return asked

    def _send(self, connection: Connection, queue: str, wanted: _Wanted) -> None:
        unheard = _depth(connection, queue)
        for _ in range(unheard, min(max(unheard + wanted.more, wanted.at_least), _MOST_UNHEARD)):
            self._app.send_task(LOOK, args=[queue], queue=queue, connection=connection, ignore_result=True)


def _depth(connection: Connection, queue: str) -> int:
    declared: Any = Queue(queue)(connection.default_channel).queue_declare()
    return int(declared.message_count)


def _hang_up(connection: Connection | None) -> None:
    try:
        if connection is not None:
            connection.collect(socket_timeout=0.5)
    except Exception as error:  # noqa: BLE001 — it is gone already
        _log.debug("While closing the broker connection: %s", error)
