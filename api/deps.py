"""Dependencies: who asks, and the unit of work that a request is."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Annotated

from anyio import CancelScope, CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from service import keys
from service.db.session import Database
from service.errors import MissingKey
from service.keys import Identity
from service.settings import Settings
from service.storage import Storage

_bearer = HTTPBearer(auto_error=False, description="A key: `twoviews keys create`, or POST /keys.")


async def _caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Identity:
    if credentials is None:
        raise MissingKey
    return await run_sync(_authenticate, request.app.state.database, credentials.credentials)


def _authenticate(database: Database, secret: str) -> Identity:
    with database.reading() as session:
        return keys.authenticate(session, secret)


async def _reader(request: Request) -> AsyncIterator[Session]:
    with request.app.state.database.reading() as session:  # neither end of it waits for anything
        yield session


async def _bell(request: Request) -> AsyncIterator[set[str]]:
    queues: set[str] = set()
    yield queues
    for queue in queues:  # not reached when the request failed, or its commit
        request.app.state.doorbell.ring(queue)


Bell = Annotated[set[str], Depends(_bell, scope="function")]


async def _writer(request: Request, bell: Bell) -> AsyncIterator[Session]:  # the bell is asked for first: it rings last
    async with _lent(request.app.state.database.writing()) as session:
        yield session


@asynccontextmanager
async def _lent(unit: AbstractContextManager[Session]) -> AsyncIterator[Session]:
    """Enter here, for no connection is opened before the first statement; leave on a thread, for a commit waits.

    The thread is beyond the pool's limit: requests that hold a connection never wait for those that want one.
    """
    session = unit.__enter__()
    try:
        yield session
    except BaseException as error:
        await _leave(unit, error)
        raise
    await _leave(unit, None)


async def _leave(unit: AbstractContextManager[Session], error: BaseException | None) -> None:
    with CancelScope(shield=True):
        await run_sync(unit.__exit__, type(error) if error else None, error, None, limiter=CapacityLimiter(1))


async def _settings(request: Request) -> Settings:
    return request.app.state.settings  # type: ignore[no-any-return]


async def _storage(request: Request) -> Storage:
    return request.app.state.storage  # type: ignore[no-any-return]


Caller = Annotated[Identity, Depends(_caller)]
Reader = Annotated[Session, Depends(_reader, scope="function")]
Writer = Annotated[Session, Depends(_writer, scope="function")]
Config = Annotated[Settings, Depends(_settings)]
Files = Annotated[Storage, Depends(_storage)]
