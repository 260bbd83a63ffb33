"""The Celery worker of one queue: its task, and how it, its child and their trainer end together.

The child gets no signal when the worker shuts down warmly, so "stop" is a byte of memory that both share. When the
worker is killed, the kernel kills the child, and with the child its trainer (`ssl_core.distributed.parent_death`).
"""

import logging
import mmap
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

from celery import signals

from service.doorbell import LOOK, create_celery_app
from service.settings import Settings
from ssl_core.distributed import parent_death
from worker import redis_transport
from worker.tasks import Looker

_SHUTDOWN_SLACK_SECONDS = 2.0


class StopFlag:
    """A flag that a process and the children forked from it share; setting it is safe in a signal handler."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)
        self._mine = False

    def set(self) -> None:
        self._memory[0] = 1

    def set_here(self) -> None:
        """Set it for this process alone."""
        self._mine = True

    def is_set(self) -> bool:
        return self._mine or self._memory[0] == 1

    def is_set_only_here(self) -> bool:
        return self._mine and self._memory[0] == 0


def run(settings: Settings, queue: str) -> None:
    """Work for the queue until SIGTERM; does not return."""
    host, pid = socket.gethostname(), os.getpid()
    stop = StopFlag()
    looker = Looker(f"{queue}@{host}:{pid}", settings, stop.is_set)
    redis_transport.listen()
    app = create_celery_app(settings.broker_url)
    app.conf.worker_soft_shutdown_timeout = settings.grace_seconds + _SHUTDOWN_SLACK_SECONDS
    app.task(_patiently(looker.look, stop), name=LOOK)
    _end_together(stop, pid)
    for chatty in (
        "celery.worker.strategy",
        "celery.app.trace",
    ):  # two lines for each ring: too much
        logging.getLogger(chatty).setLevel(logging.WARNING)
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", "--queues", queue, "--hostname", f"{queue}-{pid}@{host}", "--loglevel", "INFO", *quiet])


def _patiently(look: Callable[[str], None], stop: StopFlag) -> Callable[[str], None]:
    """Return `look`, during which SIGTERM ends the child only once its trainer has had its grace.

    A service manager may well signal all processes at once. A child that was signalled alone is replaced by Celery.
    """

    def hear(number: int, frame: FrameType | None) -> None:
        stop.set_here()

    def patient_look(queue: str) -> None:
        before = signal.signal(signal.SIGTERM, hear)
        try:
            look(queue)
        finally:
            signal.signal(signal.SIGTERM, before)
            if stop.is_set_only_here():
                os.kill(os.getpid(), signal.SIGTERM)

    return patient_look


def _end_together(stop: StopFlag, main_pid: int) -> None:
    """Connect the worker's signals: it tells the child to stop, and the child dies with it."""

    def in_child(**_: Any) -> None:
        parent_death.die_with_parent(main_pid)

    def tell_child(**_: Any) -> None:
        stop.set()

    def before_cold_shutdown(**_: Any) -> None:
        cold = signal.getsignal(signal.SIGQUIT)

        def stop_first(number: int, frame: FrameType | None) -> None:
            stop.set()  # so that the soft shutdown is a time in which the trainer writes its checkpoint
            if callable(cold):
                cold(number, frame)

        signal.signal(signal.SIGQUIT, stop_first)

    signals.worker_process_init.connect(in_child, weak=False)
    signals.worker_shutting_down.connect(tell_child, weak=False)
    signals.worker_ready.connect(before_cold_shutdown, weak=False)
