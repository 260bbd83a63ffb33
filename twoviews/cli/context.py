"""A session of the command: the connection that it was told to use, opened when it is first needed."""

from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer

from twoviews.client import Client

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Session:
    """What the options before the command's name said."""

    def __init__(self, url: str | None, key: str | None, data: Path | None) -> None:
        self._url, self._key, self.data = url, key, data

    @cached_property
    def client(self) -> Client:
        return Client(self._url, self._key, data_dir=self.data)

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()


def client(ctx: typer.Context) -> Client:
    """Return the client of the running command. Raises NoCredentials."""
    return session(ctx).client


def session(ctx: typer.Context) -> Session:
    """Return the session of the running command."""
    found: Session = ctx.obj
    return found
