"""The Celery worker of one queue: its task, and how it, its child and their trainer end together.

The child gets no signal when the worker shuts down warmly, so "stop" is a byte of memory that both share. When the
worker is killed, the kernel kills the child, and with the child its trainer (`worker.parent`).
"""

import mmap
import os
import signal
import socket
from types import FrameType
from typing import Any

from celery import signals

from service.doorbell import LOOK, celery_app
from service.settings import Settings
from worker import ear, parent
from worker.tasks import Looker

_SHUTDOWN_SLACK_SECONDS = 5.0


class StopFlag:
    """A flag that a process and the children forked from it share; setting it is safe in a signal handler."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._memory[0] = 1

    def is_set(self) -> bool:
        return self._memory[0] == 1


def run(settings: Settings, queue: str) -> None:
    """Work for the queue until SIGTERM; does not return."""
    host, pid = socket.gethostname(), os.getpid()
    stop = StopFlag()
    looker = Looker(f"{queue}@{host}:{pid}", settings, stop.is_set)
    ear.listen()
    app = celery_app(settings.broker_url)
    app.conf.worker_soft_shutdown_timeout = settings.grace_seconds + _SHUTDOWN_SLACK_SECONDS
    app.task(looker.look, name=LOOK)
    _end_together(stop, looker, pid)
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", "--queues", queue, "--hostname", f"{queue}-{pid}@{host}", "--loglevel", "INFO", *quiet])


def _end_together(stop: StopFlag, looker: Looker, main_pid: int) -> None:
    """Connect the worker's signals: it tells the child to stop, and the child dies with it."""

    def in_child(**_: Any) -> None:
        parent.die_with(main_pid)
        signal.signal(signal.SIGTERM, stop_child)

    def stop_child(number: int, frame: FrameType | None) -> None:
        stop.set()  # a service manager may signal all processes at once: the trainer still gets its grace
        if not looker.busy:
            raise SystemExit(0)

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
