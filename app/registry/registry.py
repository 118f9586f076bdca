"""Reading and writing the rows."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import alembic.command
import alembic.config
from sqlalchemy import Connection, Engine, and_, bindparam, create_engine, event, or_, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.config import PREFIX, ConfigError
from app.errors import RegistryUnavailable
from app.registry.clock import time_use
from app.registry.lookup import Lookup
from app.registry.records import Key, Origin, Residency, State
from app.registry.tables import keys
from hsm import KeyNotFound, KeySpec

logger = logging.getLogger(__name__)

_MIGRATIONS: Final = Path(__file__).with_name("migrations")
_LOCK_WAIT_SECONDS: Final = 2
_VISIBLE: Final = (State.ACTIVE, State.DEACTIVATED, State.COMPROMISED)
_NOT_OF_A_KEY: Final = {"encryptions", "host", "created_at", "changed_at"}
_FIND: Final = select(*(column for column in keys.c if column.name not in _NOT_OF_A_KEY)).where(
    or_(keys.c.kid == bindparam("kid"), keys.c.kid_public == bindparam("kid"))
)


def migrate(url: str) -> None:
    """Create the schema at ``url``, or bring it up to date; may raise ``RegistryUnavailable``."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["url"] = url
    with _translated():
        alembic.command.upgrade(config, "head")


def engine_of(url: str) -> Engine:
    """Return an engine that waits for locks only briefly and loses nothing that it committed."""
    try:
        backend = make_url(url).get_backend_name()
    except ArgumentError:  # its text shows the URL, and with it a password
        raise ConfigError(f"{PREFIX}DATABASE_URL is not a SQLAlchemy URL") from None
    if backend != "sqlite":
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)
    engine = create_engine(
        url,
        connect_args={"timeout": _LOCK_WAIT_SECONDS},
        hide_parameters=True,
        paramstyle="named",  # that of PostgreSQL is named too
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # WAL: readers never wait for the one writer. FULL: a returned kid survives a power cut.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


class Registry:
    """Rows by kid. Every method raises ``RegistryUnavailable`` if the database does not answer.

    ``host`` names those who share a ``STATE_DIR``, and with it the lock of unfinished creations.
    ``observe`` is told the seconds of each use of a connection.
    """

    def __init__(
        self, url: str, *, host: str, observe: Callable[[float], None] = lambda _seconds: None
    ) -> None:
        self._engine = engine_of(url)
        time_use(self._engine, observe)
        self._lookup = Lookup(self._engine, _FIND, observe)
        self._host = host

    def find(self, kid: UUID) -> Key | None:
        """Return the visible key that ``kid`` names, as its kid or as its public one."""
        with _translated():
            row = self._lookup.one(kid=str(kid))
        return _record(row) if row and row.state in _VISIBLE else None

    def insert(self, key: Key) -> None:
        """Add a row."""
        now = datetime.now(UTC)
        with self._writing() as connection:
            connection.execute(
                keys.insert().values(
                    kid=str(key.kid),
                    kid_public=str(key.kid_public) if key.kid_public else None,
                    owner=key.owner,
                    kty=key.spec.kty,
                    alg=key.spec.alg,
                    crv=key.spec.crv,
                    bits=key.spec.bits,
                    origin=key.origin,
                    residency=key.residency,
                    state=key.state,
                    public_jwk=key.public_jwk,
                    host=self._host,
                    created_at=now,
                    changed_at=now,
                )
            )

    def activate(self, kid: UUID, public_jwk: Mapping[str, str] | None) -> None:
        """Make a pending key visible; if its row is gone, nobody could ever reach the key."""
        if not self._change(
            kid, from_states=[State.PENDING], state=State.ACTIVE, public_jwk=public_jwk
        ):
            raise RegistryUnavailable

    def mark_destroyed(self, kid: UUID) -> bool:
        """Hide a visible key for ever; return whether it was this call that did."""
        return self._change(kid, from_states=_VISIBLE, state=State.DESTROYED)

    def abandon(self, kid: UUID) -> None:
        """Hide a key for ever, however far its creation got."""
        self._change(kid, from_states=State, state=State.DESTROYED)

    def remove(self, kid: UUID) -> None:
        """Delete a row; absence is success."""
        with self._writing() as connection:
            connection.execute(keys.delete().where(keys.c.kid == str(kid)))

    def reserve_encryptions(self, kid: UUID, count: int, *, most: int) -> tuple[int, int]:
        """Count up to ``count`` encryptions with ``kid`` in advance, so that there are ``most``.

        Returns how many, and the sum of all counted. Raises ``KeyNotFound`` if the row is gone.
        """
        update = (
            keys.update()
            .where(keys.c.kid == str(kid), keys.c.state.in_(_VISIBLE))
            .values(encryptions=keys.c.encryptions + count)
            .returning(keys.c.encryptions)
        )
        with self._writing() as connection:
            total = connection.execute(update).scalar_one_or_none()
            if total is None:
                raise KeyNotFound
            granted = max(0, count - max(0, total - most))
            if not granted:
                connection.rollback()
            return granted, total

    def unfinished(self, *, here_before: datetime, before: datetime) -> Mapping[UUID, KeySpec]:
        """Return keys whose creation or destruction was begun and not ended.

        Those of this host if begun ``here_before``, those of other hosts if begun ``before``.
        """
        is_old = or_(
            and_(keys.c.host == self._host, keys.c.changed_at < here_before),
            keys.c.changed_at < before,
        )
        query = select(keys).where(keys.c.state.in_([State.PENDING, State.DESTROYED]), is_old)
        with self._reading() as connection:
            return {UUID(row.kid): _spec(row) for row in connection.execute(query)}

    def specs(self) -> Mapping[UUID, KeySpec]:
        """Return what all keys are, in whatever state."""
        with self._reading() as connection:
            return {UUID(row.kid): _spec(row) for row in connection.execute(select(keys))}

    def _change(self, kid: UUID, *, from_states: Iterable[State], **values: Any) -> bool:
        update = (
            keys.update()
            .where(keys.c.kid == str(kid), keys.c.state.in_(list(from_states)))
            .values(changed_at=datetime.now(UTC), **values)
        )
        with self._writing() as connection:
            return connection.execute(update).rowcount == 1

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _translated(), self._engine.begin() as connection:
            yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        logger.warning("the registry answers: %s", getattr(error, "orig", error))
        raise RegistryUnavailable from error


def _spec(row: Any) -> KeySpec:
    return KeySpec(kty=row.kty, alg=row.alg, crv=row.crv, bits=row.bits)


def _record(row: Any) -> Key:
    return Key(
        kid=UUID(row.kid),
        kid_public=UUID(row.kid_public) if row.kid_public else None,
        owner=row.owner,
        spec=_spec(row),
        origin=Origin(row.origin),
        residency=Residency(row.residency),
        state=State(row.state),
        public_jwk=row.public_jwk,
    )
