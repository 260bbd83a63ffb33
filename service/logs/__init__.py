"""Logs of every process of the service: one line for each record, as JSON or text, with the ids that apply."""

from service.logs.setup import configure, start

__all__ = ["configure", "start"]
