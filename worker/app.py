"""The Celery application of one worker: its task, and the shutdown of the worker, its child and the trainer.

The child gets no signal at a warm shutdown, so "stop" is a byte of shared memory. When the worker is killed, the kernel
kills the child, and with the child its trainer (`ssl_core.distributed.parent_death`).
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
from celery.apps.worker import install_worker_term_handler

from service.doorbell import LOOK, create_celery_app
from service.settings import Settings
from ssl_core.distributed import parent_death
from worker import redis_transport
from worker.tasks import JobRunner

DRAIN = signal.SIGUSR2  # billiard takes SIGUSR1 for its soft time limits
_SHUTDOWN_SLACK_SECONDS = 2.0
_log = logging.getLogger(__name__)


class StopFlag:
    """A flag shared by a process and its forked children; setting it is safe in a signal handler."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)
        self._is_set_locally = False

    def set(self) -> None:
        self._memory[0] = 1

    def set_locally(self) -> None:
        """Set it for this process alone."""
        self._is_set_locally = True

    def is_set(self) -> bool:
        return self._is_set_locally or self._memory[0] == 1

    def is_set_only_locally(self) -> bool:
        return self._is_set_locally and self._memory[0] == 0


def run(settings: Settings, queue: str) -> None:
    """Run the jobs of the queue until a signal; does not return.

    SIGTERM stops the present job at a checkpoint, SIGUSR2 (`DRAIN`) lets it end.
    """
    host, pid = socket.gethostname(), os.getpid()
    stop, drain = StopFlag(), StopFlag()
    runner = JobRunner(f"{queue}@{host}:{pid}", settings, stop.is_set, drain.is_set)
    redis_transport.register()
    app = create_celery_app(settings.broker_url)
    app.conf.worker_soft_shutdown_timeout = settings.grace_seconds + _SHUTDOWN_SLACK_SECONDS
    app.task(_defer_sigterm(runner.run_queued_jobs, stop), name=LOOK)
    _connect_signals(stop, drain, pid)
    for name in ("celery.worker.strategy", "celery.app.trace"):  # they log two lines for each ring
        logging.getLogger(name).setLevel(logging.WARNING)
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    names = ["--queues", queue, "--hostname", f"{queue}-{pid}@{host}"]
    app.worker_main(["--quiet", "worker", *names, *quiet])


def _defer_sigterm(task: Callable[[str], None], stop: StopFlag) -> Callable[[str], None]:
    """Wrap `task` so that SIGTERM ends the child only after its trainer's grace time.

    A service manager may signal all processes at once. A child that is signalled alone is replaced by Celery.
    """

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        stop.set_locally()

    def run_task(queue: str) -> None:
        before = signal.signal(signal.SIGTERM, on_sigterm)
        try:
            task(queue)
        finally:
            signal.signal(signal.SIGTERM, before)
            if stop.is_set_only_locally():
                os.kill(os.getpid(), signal.SIGTERM)

    return run_task


def _connect_signals(stop: StopFlag, drain: StopFlag, main_pid: int) -> None:
    """Connect Celery's signals: a shutdown sets one of the flags, and the child dies with its parent."""

    def on_child_start(**_: Any) -> None:
        parent_death.die_with_parent(main_pid)
        signal.signal(DRAIN, signal.SIG_IGN)  # a service manager may signal all processes; the trainer inherits it

    def on_shutdown(sig: str, **_: Any) -> None:
        if sig == DRAIN.name:
            drain.set()
            _log.info("The worker drains: it takes no job and ends after the present one; SIGTERM stops that too")
        else:
            stop.set()
            _log.info("The worker stops: the present job writes a checkpoint and is queued again")

    def on_ready(sender: Any, **_: Any) -> None:
        for name in (DRAIN.name, "SIGTERM"):  # both end Celery's worker when its task has ended
            install_worker_term_handler(sender.controller, sig=name, verbose=False)
        cold = signal.getsignal(signal.SIGQUIT)

        def stop_before_cold_shutdown(number: int, frame: FrameType | None) -> None:
            stop.set()  # so that the trainer writes its checkpoint during the soft shutdown
            if callable(cold):
                cold(number, frame)

        signal.signal(signal.SIGQUIT, stop_before_cold_shutdown)

    def keep_logging(**_: Any) -> None:
        """Keep the logging of `service.logs`: Celery configures its own only if nothing receives the signal."""

    signals.setup_logging.connect(keep_logging, weak=False)
    signals.worker_process_init.connect(on_child_start, weak=False)
    signals.worker_shutting_down.connect(on_shutdown, weak=False)
    signals.worker_ready.connect(on_ready, weak=False)
