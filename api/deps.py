"""Dependencies: who asks, and the unit of work that a request is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from anyio.to_thread import run_sync
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from service import keys
from service.db.session import Database
from service.doorbell import Doorbell
from service.errors import MissingKey
from service.keys import Identity
from service.settings import Settings
from service.storage import Storage

T = TypeVar("T")
_bearer = HTTPBearer(auto_error=False, description="A key: `twoviews keys create`, or POST /keys.")


@dataclass(frozen=True, slots=True)
class Unit:
    """A session, whose it is, and the queues to ring for once it is committed."""

    session: Session
    tenant_id: str
    key_id: str
    queues: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whoever brought a key. There is no session but through here, so nothing is told to one whose key is not known.

    The key is looked up where the work begins, on the same thread; so a request costs one thread's turn, not two.
    What can be seen to be wrong without looking (a config's form) is told before. Every method raises WrongKey, and
    waits for the database.
    """

    database: Database
    doorbell: Doorbell
    secret: str

    @contextmanager
    def reading(self) -> Iterator[Unit]:
        """A unit that writes nothing and waits for no writer."""
        with self.database.reading() as session:
            who = keys.authenticate(session, self.secret)
            yield Unit(session, who.tenant_id, who.key_id)

    async def briefly(self, work: Callable[[Unit], T]) -> T:
        """Return what `work` returns, which reads a few rows.

        On SQLite they are read on the spot: to hand that to a thread takes longer than to do it (benchmarks/api.py).
        """
        return self._read(work) if self.database.is_local else await run_sync(self._read, work)

    def _read(self, work: Callable[[Unit], T]) -> T:
        with self.reading() as unit:
            return work(unit)

    @contextmanager
    def writing(self) -> Iterator[Unit]:
        """A unit that is committed when the block ends, rolled back when it raises."""
        with self.database.reading() as session:  # apart: a wrong key never takes a turn to write
            who = keys.authenticate(session, self.secret)
        with self.database.writing() as session:
            unit = Unit(session, who.tenant_id, who.key_id)
            yield unit
        for queue in unit.queues:
            self.doorbell.ring(queue)


async def _caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Bearer:
    if credentials is None:
        raise MissingKey
    state = request.app.state
    return Bearer(state.database, state.doorbell, credentials.credentials)


async def _known(caller: Annotated[Bearer, Depends(_caller)]) -> Identity:
    return await caller.briefly(lambda unit: Identity(unit.tenant_id, unit.key_id))


async def _settings(request: Request) -> Settings:
    return request.app.state.settings  # type: ignore[no-any-return]


async def _storage(request: Request) -> Storage:
    return request.app.state.storage  # type: ignore[no-any-return]


Caller = Annotated[Bearer, Depends(_caller)]
Known = Annotated[Identity, Depends(_known)]  # where there is much to do before the first unit, or none at all
SettingsDep = Annotated[Settings, Depends(_settings)]
StorageDep = Annotated[Storage, Depends(_storage)]
