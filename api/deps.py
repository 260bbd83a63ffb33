"""FastAPI dependencies: the authenticated caller, its unit of work, the settings and the storage."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from anyio.to_thread import run_sync
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from api.request_rate import RequestRate
from api.wrong_keys import WrongKeyBrake
from service import keys
from service.db.session import Database
from service.doorbell import Doorbell
from service.errors import MissingKey, WrongKey
from service.keys import Identity, Role
from service.logs import context
from service.settings import Settings
from service.storage import Storage

T = TypeVar("T")
_bearer = HTTPBearer(auto_error=False, description="A key, from `twoviews keys create` or POST /keys.")


@dataclass(frozen=True, slots=True)
class UnitOfWork:
    """A session of an authenticated tenant, and the queues to ring for after its commit."""

    session: Session
    tenant_id: str
    key_id: str
    role: Role
    queues: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Caller:
    """The sender of a request with a key. All database access requires an authenticated key, so sessions open here.

    The key is authenticated in the thread of the work, which saves a switch of threads; errors that need no database
    are raised before. Every method raises WrongKey, which is counted for the address, and RequestQuotaExceeded for the
    first use of a request above the quota.
    """

    database: Database
    doorbell: Doorbell
    rate: RequestRate
    wrong_keys: WrongKeyBrake
    secret: str
    address: str
    identity: Identity | None = None  # authenticated and counted by `check_key`
    _is_counted: bool = field(default=False, init=False)

    @contextmanager
    def reading(self) -> Iterator[UnitOfWork]:
        """Open a read-only unit of work, which waits for no writer."""
        with self.database.reading() as session:
            identity = self._authenticate(session)
            yield UnitOfWork(session, identity.tenant_id, identity.key_id, identity.role)

    async def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Return `work(unit)`, for work that reads a few rows.

        On SQLite it runs in the event loop: passing it to a thread takes longer than running it (benchmarks/api.py).
        """
        return self._run(work) if self.database.is_local else await run_sync(self._run, work)

    def _run(self, work: Callable[[UnitOfWork], T]) -> T:
        with self.reading() as unit:
            return work(unit)

    @contextmanager
    def writing(self) -> Iterator[UnitOfWork]:
        """Open a unit of work that is committed when the block ends, rolled back when it raises."""
        with self.database.reading() as session:  # separate: a wrong key never waits for the write lock
            identity = self._authenticate(session)
        with self.database.writing() as session:
            unit = UnitOfWork(session, identity.tenant_id, identity.key_id, identity.role)
            yield unit
        for queue in unit.queues:
            self.doorbell.ring(queue)

    def _authenticate(self, session: Session) -> Identity:
        if self.identity is not None:
            return self.identity
        try:
            identity = keys.authenticate(session, self.secret)
        except WrongKey:
            self.wrong_keys.add_wrong(self.address)
            raise
        self.wrong_keys.add_valid(self.secret)
        context.add("owner", identity.tenant_id)
        if not self._is_counted:
            self._is_counted = True
            self.rate.add(identity.tenant_id)
        return identity


async def _get_caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    return _build_caller(request, credentials)


def _build_caller(request: Request, credentials: HTTPAuthorizationCredentials | None) -> Caller:
    if credentials is None:
        raise MissingKey
    state, secret = request.app.state, credentials.credentials
    address = request.client.host if request.client else ""
    state.wrong_keys.check(address, secret)
    identity = getattr(request.state, "identity", None)
    return Caller(state.database, state.doorbell, state.request_rate, state.wrong_keys, secret, address, identity)


async def check_key(request: Request) -> None:
    """Raise MissingKey, WrongKey, TooManyWrongKeys or RequestQuotaExceeded before the body of the request is read."""
    request.state.identity = await _get_identity(_build_caller(request, await _bearer(request)))


async def _get_identity(caller: Annotated[Caller, Depends(_get_caller)]) -> Identity:
    return await caller.read(lambda unit: Identity(unit.tenant_id, unit.key_id, unit.role))


async def _get_settings(request: Request) -> Settings:
    return request.app.state.settings  # type: ignore[no-any-return]


async def _get_storage(request: Request) -> Storage:
    return request.app.state.storage  # type: ignore[no-any-return]


CallerDep = Annotated[Caller, Depends(_get_caller)]
IdentityDep = Annotated[Identity, Depends(_get_identity)]  # authenticates before the route's own work
SettingsDep = Annotated[Settings, Depends(_get_settings)]
StorageDep = Annotated[Storage, Depends(_get_storage)]
