"""Reading and writing the rows."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Update, and_, delete, func, or_, select
from sqlalchemy.exc import IntegrityError

from app.errors import AliasTaken, RegistryCause, RegistryUnavailable
from app.idempotency import IdempotentRequest
from app.kid import KeySetName, is_kid
from app.registry.counts import Census
from app.registry.databases.database import Database, engine_for, instant, translated
from app.registry.databases.queries import (
    FIND,
    FIND_CALLED_FOR,
    FIND_CURRENT_FOR,
    FIND_FOR,
)
from app.registry.databases.reading import legible, readable
from app.registry.grants import Grants
from app.registry.idempotency import IdempotentAnswers, forget
from app.registry.keysets.keysets import KeySets
from app.registry.pages import Pages
from app.registry.postponed import Postponed
from app.registry.records import (
    DESTROYED,
    LASTING,
    VISIBLE,
    Found,
    Key,
    State,
    activation_of,
    hot_record_of,
    record_of,
    ref_of,
)
from app.registry.revisions import (
    Age,
    alembic_config,
    is_old,
    require_known,
    require_unicode,
    revision_at,
)
from app.registry.rows.additions import Answer, add
from app.registry.rows.holding import is_as_read
from app.registry.rows.keks import Keks
from app.registry.rows.named import Granted, find_all, find_readable
from app.registry.tables import SPEC, grants, identity, keys, tags, uses, versions
from app.registry.tags import Tagging, Tags
from app.registry.tokens import Credentials
from app.registry.uses import Uses, today, write_use
from hsm import KeyNotFound, KeyRef, KeySpec, Storage

_BATCH: Final = 1000
_IDENTITY: Final = select(identity.c.id)  # asked for again and again
_NOBODY: Final = UUID(int=0)


def _visible(row: Any) -> Key | None:
    return hot_record_of(row) if row.state in VISIBLE else None


def _lasting_and_granted(row: Any) -> Found | None:
    if row.state not in LASTING:
        return None
    return Found(hot_record_of(row), bool(row.is_granted), bool(row.is_known))


class AlreadyRequested(Exception):
    """A request with the same Idempotency-Key has been remembered meanwhile."""


def migrate(url: str) -> None:
    """Create the schema at ``url``, or bring it up to date.

    Raises ``ConfigError`` if a newer version has written it, or a new one would not take all texts,
    and ``RegistryUnavailable``.
    """
    import alembic.command  # noqa: PLC0415  # see ``alembic_config``

    revision = revision_at(url)
    require_known(revision)
    with engine_for(url, is_maintenance=True) as engine:
        if revision.age is Age.MISSING:
            require_unicode(engine)
        alembic.command.upgrade(alembic_config(url), "head")


class Registry:
    """Rows by kid. Every method raises ``RegistryUnavailable`` if the database does not answer.

    ``host`` names those who share a ``STATE_DIR``, and with it the lock of unfinished creations.
    ``observe`` is told the seconds of each use of a connection.
    """

    def __init__(
        self, url: str, *, host: str, observe: Callable[[float], None] = lambda _seconds: None
    ) -> None:
        database = self._database = Database(url, observe)
        self._lookup = database.lookup(FIND, _visible)
        self._lookup_for = database.lookup(FIND_FOR, _lasting_and_granted)
        self._lookup_called_for = database.lookup(FIND_CALLED_FOR, _lasting_and_granted)
        self._lookup_current_for = database.lookup(FIND_CURRENT_FOR, _lasting_and_granted)
        self._host = host
        self.grants = Grants(database)
        self.tags = Tags(database)
        self.pages = Pages(database)
        self.census = Census(database)
        self.credentials = Credentials(database)
        self.idempotency = IdempotentAnswers(database)
        self.postponed = Postponed(database, host)
        self.keysets = KeySets(database, host)
        self.uses = Uses(database)
        self.keks = Keks(database)

    def guard(self, require: Callable[[object], None]) -> None:
        """Have ``require`` called before each use, but for ``identity`` and ``is_new``.

        It is given what distinguishes the file of the registry from all others, if it is one.
        """
        self._database.require = require

    def identity(self) -> str:
        """Return what registry this is, for the token to remember."""
        with translated(self._database.engine), self._database.engine.connect() as connection:
            return str(connection.scalar(_IDENTITY))

    def is_new(self) -> bool:
        """Tell whether there has never been a key, so far as is known."""
        with translated(self._database.engine), self._database.engine.connect() as connection:
            return connection.scalar(select(keys.c.kid).limit(1)) is None

    def check(self) -> None:
        """Raise ``RegistryUnavailable`` if the database does not answer, or has an older schema."""
        self.find(_NOBODY)
        if is_old(self.census.revision()):
            raise RegistryUnavailable(RegistryCause.SCHEMA)

    def find(self, kid: UUID) -> Key | None:
        """Return the visible key that ``kid`` names, as its kid or as its public one."""
        found: Key | None = self._database.one(self._lookup, kid=str(kid))
        return found

    def find_for(self, principal: str, operation: str, kid: str) -> Found | None:
        """Return the visible key that ``kid`` names, which may be an alias, and what is granted."""
        found = self.find_lasting_for(principal, operation, kid)
        return found if found and found.key.state is not State.DESTROYING else None

    def find_lasting_for(self, principal: str, operation: str, kid: str) -> Found | None:
        """Return the same of a key that is visible, or that can be had back."""
        lookup = self._lookup_for if is_kid(kid) else self._lookup_called_for
        if isinstance(kid, KeySetName):
            lookup, kid = self._lookup_current_for, kid.name
        found: Found | None = self._database.one(
            lookup, kid=kid, principal=str(principal), operation=str(operation)
        )
        return found

    def find_all_for(self, principal: str, kids: Collection[str]) -> Mapping[str, Granted]:
        """Return visible keys by the ``kids`` and aliases that name them, and what is granted."""
        with self._database.reading() as connection, legible():
            return find_all(connection, principal, kids)

    def find_readable_for(
        self, principal: str, kids: Collection[str]
    ) -> tuple[Mapping[str, Granted], frozenset[str]]:
        """Return the same, and which of ``kids`` name keys whose rows cannot be read."""
        with self._database.reading() as connection:
            return find_readable(connection, principal, kids)

    def whole(self, kid: UUID, states: Collection[State] = VISIBLE) -> Key | None:
        """Return the key, in one of ``states``, with all that is known of it."""
        with self._database.reading() as connection, legible():
            row = connection.execute(select(keys).where(keys.c.kid == str(kid))).one_or_none()
            return record_of(row) if row and row.state in states else None

    def insert(self, key: Key) -> None:
        """Add the row of a key that has no tags and is not published; see ``insert_all``."""
        self.insert_all([key], Tagging(), request=None, answer=lambda _are_published: {})

    def insert_all(
        self,
        new: Sequence[Key],
        tagging: Tagging,
        *,
        request: IdempotentRequest | None,
        answer: Answer,
        wrapping: UUID | None = None,
    ) -> list[bool]:
        """Add rows, all or none; return which of the keys are published.

        ``answer`` is what to remember of ``request``. Raises ``AlreadyRequested`` if it is
        remembered, ``AliasTaken``, and what ``add`` does.
        """
        try:
            with self._database.writing() as connection:
                return add(connection, self._host, new, tagging, request, answer, wrapping)
        except IntegrityError as error:
            if request and (new[0].alias is None or self.idempotency.find(request)):
                raise AlreadyRequested from error
            if new[0].alias is None:
                raise
            raise AliasTaken from error

    def activate_all(self, made: Mapping[KeyRef, Mapping[str, str] | None]) -> None:
        """Make pending keys visible, all or none, each with its public half.

        Raises ``RegistryUnavailable`` if a row is gone: nobody could ever reach the key.
        """
        with self._database.writing() as connection:
            for ref, public_jwk in made.items():
                update = _update(from_states=[State.PENDING], **activation_of(ref, public_jwk))
                if connection.execute(update).rowcount != 1:
                    raise RegistryUnavailable

    def change(self, key: Key, untagged: Collection[str] = (), **values: Any) -> bool:
        """Set columns of a key, and take tags from it; return whether it was still as ``key`` is.

        That is in the same state, of the same owner, and under the same seal. Raises ``AliasTaken``
        if another key has the alias.
        """
        update = _update(key.kid, from_states=VISIBLE, **values).where(is_as_read(key))
        its = tags.c.kid == str(key.kid)
        try:
            with self._database.writing() as connection:
                is_changed = connection.execute(update).rowcount == 1
                if is_changed and untagged:
                    connection.execute(delete(tags).where(its, tags.c.tag.in_(untagged)))
                return is_changed
        except IntegrityError as error:
            raise AliasTaken from error

    def mark_destroyed(self, kid: UUID, states: Iterable[State] = VISIBLE) -> bool:
        """Hide for ever a key in one of ``states``; return whether it was this call that did.

        From then on its alias is free.
        """
        return self._change(kid, from_states=states, **DESTROYED)

    def abandon(self, kid: UUID) -> None:
        """Hide a key for ever, however far its creation got, and forget who asked for it."""
        with self._database.writing() as connection:
            forget(connection, str(kid))
        self._change(kid, from_states=State, **DESTROYED)

    def remove(self, kid: UUID) -> None:
        """Delete a row and all that hangs on it; absence is success."""
        with self._database.writing() as connection:
            # First what holds a version: who adds to what hangs on it has it until he is done.
            for table in (versions, grants, tags, uses, keys):
                connection.execute(delete(table).where(table.c.kid == str(kid)))

    def reserve_encryptions(self, kid: UUID, count: int, *, most: int) -> tuple[int, int]:
        """Count up to ``count`` encryptions with ``kid`` in advance, so that there are ``most``.

        Returns how many, and the sum of all counted. The key counts as used today. Raises
        ``KeyNotFound`` if the row is gone.
        """
        update = (
            keys.update()
            .where(keys.c.kid == str(kid), keys.c.state.in_(VISIBLE))
            .values(encryptions=keys.c.encryptions + count)
            .returning(keys.c.encryptions)
        )
        with self._database.writing() as connection:
            total = connection.execute(update).scalar_one_or_none()
            if total is None:
                raise KeyNotFound
            granted = max(0, count - max(0, total - most))
            if granted:
                write_use(connection, [str(kid)], today())
            else:
                connection.rollback()
            return granted, total

    def unfinished(self, *, here_before: datetime, before: datetime) -> Mapping[UUID, KeyRef]:
        """Return keys whose creation or destruction was begun and not ended.

        Those of this host if begun ``here_before``, those of other hosts if begun ``before``.
        """
        is_old = or_(
            and_(keys.c.host == self._host, keys.c.changed_at < here_before),
            keys.c.changed_at < before,
        )
        query = select(*SPEC).where(keys.c.state.in_([State.PENDING, State.DESTROYED]), is_old)
        with self._database.reading() as connection:
            return {ref.kid: ref for ref in readable(connection, query, ref_of)}

    def specs(
        self, states: Iterable[State] = State, storages: Iterable[Storage] = Storage
    ) -> Mapping[UUID, KeySpec]:
        """Return what all keys are that are in one of ``states`` and kept in ``storages``."""
        kept = list(storages)
        query = select(*SPEC).where(keys.c.state.in_(list(states)), keys.c.storage.in_(kept))
        if kept == [Storage.TOKEN]:  # perhaps few of many, and an index has them together
            query = query.where(keys.c.kek.is_(None))
        query = query.execution_options(yield_per=_BATCH)  # of millions none takes long
        with self._database.streaming() as connection:
            return {ref.kid: ref.spec for ref in readable(connection, query, ref_of)}

    def last_change(self) -> datetime | None:
        """Return when a key was changed last, by whatever clock."""
        with self._database.reading() as connection, legible():
            return instant(connection.scalar(select(func.max(keys.c.changed_at))))

    def _change(self, kid: UUID, *, from_states: Iterable[State], **values: Any) -> bool:
        with self._database.writing() as connection:
            update = _update(kid, from_states=from_states, **values)
            return connection.execute(update).rowcount == 1


def _update(kid: UUID, *, from_states: Iterable[State], **values: Any) -> Update:
    return (
        keys.update()
        .where(keys.c.kid == str(kid), keys.c.state.in_(list(from_states)))
        .values(changed_at=datetime.now(UTC), **values)
    )
