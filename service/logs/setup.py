"""Log setup: the root logger of a process, by its settings. Celery, uvicorn and warnings log through it too."""

import logging
import sys
import threading
from types import TracebackType

from service.logs import redaction
from service.logs.formats import JsonLines, TextLines
from service.logs.output import FileHandler, StderrHandler
from service.settings import Settings, load_settings

_log = logging.getLogger("service.process")


def start() -> Settings:
    """Return the settings of the environment, after this process logs as they say.

    Exits with a sentence when a setting is invalid or the log cannot be opened.
    """
    return load_settings(configure)


def configure(settings: Settings) -> None:
    """Let all loggers of this process write as the settings say. Exits with a sentence if the log cannot be opened."""
    try:
        handler = FileHandler(settings.log_file) if settings.log_file else StderrHandler()
    except OSError as error:
        sys.exit(f"The log {settings.log_file} cannot be opened: {error.strerror}.")
    redact = redaction.build(settings)
    handler.setFormatter(JsonLines(redact) if _is_json(settings) else TextLines(redact))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    _leave_out_unused_fields()
    sys.excepthook = _log_exception
    threading.excepthook = _log_thread_exception


def _leave_out_unused_fields() -> None:
    """Let records have no thread, process and place in the source, which no format shows.

    They take a fifth of the time of a record ("Optimization" in the documentation of `logging`).
    """
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _is_json(settings: Settings) -> bool:
    if settings.log_format == "auto":
        return settings.log_file is not None or not sys.stderr.isatty()
    return settings.log_format == "json"


def _log_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _log.critical("The process ends: %s: %s", kind.__name__, error, exc_info=(kind, error, trace))


def _log_thread_exception(arguments: threading.ExceptHookArgs) -> None:
    error = arguments.exc_value
    if error is not None:
        name = arguments.thread.name if arguments.thread else "?"
        _log.error("The thread %s ends: %s: %s", name, type(error).__name__, error, exc_info=error)
