"""FastAPI dependencies: the authenticated caller, its unit of work, the settings and the storage."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar, cast

from anyio.to_thread import run_sync
from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer, SecurityScopes
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from api.auth.key_uses import KeyUses
from api.request_rate import RequestRate
from api.wrong_keys import WrongKeyBrake
from service import audit, keys
from service.audit import Action, Actor
from service.db.session import Database, Reader
from service.doorbell import Doorbell
from service.errors import Error, MissingKey, Unauthorized
from service.keys import Identity, Role, Scope
from service.logs import context
from service.settings import Settings
from service.storage import Storage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UnitOfWork:
    """A session of an authenticated tenant, and the queues to ring for after its commit."""

    session: Session
    identity: Identity
    actor: Actor
    queues: set[str] = field(default_factory=set)

    @property
    def tenant_id(self) -> str:
        return self.identity.tenant_id

    @property
    def key_id(self) -> str:
        return self.identity.key_id

    @property
    def role(self) -> Role:
        return self.identity.role

    def record(self, action: Action, target: str, **detail: Any) -> None:
        """Add an entry to the audit trail, in the transaction of what it records."""
        audit.record(self.session, self.actor, action, target, **detail)


@dataclass(slots=True)
class Caller:
    """The sender of a request with a key. All database access requires an authenticated key, so sessions open here.

    The key is authenticated in the thread of the work, which saves a switch of threads; errors that need no database
    are raised before. Every method raises WrongKey and ExpiredKey, which are counted for the address, the Forbidden of
    a scope that the key does not have, and RequestQuotaExceeded for the first use of a request above the quota.
    """

    database: Database
    doorbell: Doorbell
    rate: RequestRate
    wrong_keys: WrongKeyBrake
    uses: KeyUses
    scope: Scope
    secret: str
    address: str
    request_id: str
    route: str
    identity: Identity | None = None  # authenticated and counted by `check_key`
    _is_counted: bool = field(default=False, init=False)

    @contextmanager
    def reading(self) -> Iterator[UnitOfWork]:
        """Open a read-only unit of work, which waits for no writer."""
        with self.database.reading() as session:
            identity = self._authenticate(session)
            yield UnitOfWork(session, identity, self._build_actor(identity))

    async def read(self, work: Callable[[Connection, Identity], T], *, is_short: bool = True) -> T:
        """Return `work(connection, identity)`, for work that selects a few rows, often.

        On SQLite short work runs in the event loop: passing it to a thread takes longer (benchmarks/api.py).
        """
        return self._run(work) if self.database.is_local and is_short else await run_sync(self._run, work)

    def _run(self, work: Callable[[Connection, Identity], T]) -> T:
        with self.database.connecting() as connection:
            return work(connection, self._authenticate(connection))

    @contextmanager
    def writing(self) -> Iterator[UnitOfWork]:
        """Open a unit of work that is committed when the block ends, rolled back when it raises."""
        with self.database.reading() as session:  # separate: a wrong key never waits for the write lock
            identity = self._authenticate(session)
        with self.database.writing() as session:
            unit = UnitOfWork(session, identity, self._build_actor(identity))
            yield unit
        for queue in unit.queues:
            self.doorbell.ring(queue)

    def require(self, identity: Identity, scope: Scope) -> None:
        """Raise what `Identity.check` does; the refusal is recorded."""
        try:
            identity.check(scope)
        except Error as error:
            self.uses.add_refusal(self._build_actor(identity), error.code, self.route)
            raise

    def _authenticate(self, reader: Reader) -> Identity:
        if self.identity is not None:
            return self.identity
        try:
            identity = keys.identify(reader, self.secret)
            self.require(identity, self.scope)
        except Unauthorized:
            self.wrong_keys.add_wrong(self.address)
            raise
        self.wrong_keys.add_valid(self.secret)
        context.add("owner", identity.tenant_id)
        self.uses.add_use(identity.key_id)
        if not self._is_counted:
            self._is_counted = True
            self.rate.add(identity.tenant_id)
        return identity

    def _build_actor(self, identity: Identity) -> Actor:
        return Actor(identity.tenant_id, identity.key_id, identity.key_name, self.address, self.request_id)


class _KeyScheme(HTTPBearer):
    """The security scheme of the OpenAPI document; as a dependency it returns the caller, without a query.

    One dependency instead of three, since FastAPI's resolution takes a fifth of the time of a short request.
    """

    def __init__(self) -> None:
        description = "A key, from `twoviews keys create` or POST /keys."
        super().__init__(scheme_name="HTTPBearer", description=description, auto_error=False)

    async def __call__(self, request: Request, needed: SecurityScopes) -> Caller:  # type: ignore[override]
        """Raises MissingKey and TooManyWrongKeys."""
        (scope,) = needed.scopes
        return await self.build_caller(request, cast(Scope, scope))

    async def build_caller(self, request: Request, scope: Scope) -> Caller:
        credentials = await super().__call__(request)
        if credentials is None:
            raise MissingKey
        state, secret = request.app.state, credentials.credentials
        address = request.client.host if request.client else ""
        state.wrong_keys.check(address, secret)
        return Caller(
            state.database,
            state.doorbell,
            state.request_rate,
            state.wrong_keys,
            state.key_uses,
            scope,
            secret,
            address,
            request_id=request.state.request_id,
            route=f"{request.method} {request.scope['route'].path}",
            identity=getattr(request.state, "identity", None),
        )


_get_caller = _KeyScheme()


async def check_key(request: Request, scope: Scope) -> None:
    """Raise what `Caller` does, MissingKey or TooManyWrongKeys, before the body of the request is read."""
    request.state.identity = await _get_identity(await _get_caller.build_caller(request, scope))


async def _get_identity(caller: Annotated[Caller, Depends(_get_caller)]) -> Identity:
    return await caller.read(lambda _, identity: identity)


async def _get_settings(request: Request) -> Settings:
    return request.app.state.settings  # type: ignore[no-any-return]


async def _get_storage(request: Request) -> Storage:
    return request.app.state.storage  # type: ignore[no-any-return]


# The scope that a route needs is in the type of its caller.
ReadCaller = Annotated[Caller, Security(_get_caller, scopes=["read"])]
TrainCaller = Annotated[Caller, Security(_get_caller, scopes=["train"])]
AdminCaller = Annotated[Caller, Security(_get_caller, scopes=["admin"])]
# Those below authenticate before the route's own work.
ReadIdentity = Annotated[Identity, Security(_get_identity, scopes=["read"])]
EmbedIdentity = Annotated[Identity, Security(_get_identity, scopes=["embed"])]
TrainIdentity = Annotated[Identity, Security(_get_identity, scopes=["train"])]
SettingsDep = Annotated[Settings, Depends(_get_settings)]
StorageDep = Annotated[Storage, Depends(_get_storage)]
