"""CLI context: the client that the global options configure, created at first use."""

from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from twoviews.client import Client

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Session:
    """The global options, and a client with them."""

    def __init__(self, url: str | None, key: str | None, data: Path | None) -> None:
        self._url, self._key, self.data = url, key, data

    @cached_property
    def client(self) -> Client:
        return Client(self._url, self._key, data_dir=self.data)

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()


def get_client(ctx: typer.Context) -> Client:
    """Return the client of the running command. Raises NoCredentials."""
    return get_session(ctx).client


def get_session(ctx: typer.Context) -> Session:
    """Return the session of the running command."""
    found: Session = ctx.obj
    return found
