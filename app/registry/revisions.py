"""Which revision of the schema a registry has, and whether that is the one this version knows."""

from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Engine, text

from app.registry.databases import sqlite
from app.registry.databases.database import engine_for
from app.settings import PREFIX, ConfigError

MIGRATIONS: Final = Path(__file__).with_name("migrations")


class Age(StrEnum):
    """How a schema compares with the one that this version knows."""

    MISSING = "missing"
    OLD = "old"
    CURRENT = "current"
    FUTURE = "future"


class Revision(NamedTuple):
    """That which was ``found``, if any, and the ``newest`` that this version knows."""

    age: Age
    found: str | None
    newest: str


def alembic_config(url: str) -> Any:
    """Return what alembic has to know of the registry at ``url``."""
    # A quarter of the time in which the service starts, and it does without.
    from alembic.config import Config  # noqa: PLC0415  # see above

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = url
    return config


def revision_at(url: str) -> Revision:
    """Return the revision of the registry at ``url``, which is not made if it is not there.

    Raises ``RegistryUnavailable`` if the database does not answer.
    """
    from alembic.migration import MigrationContext  # noqa: PLC0415  # as above

    with engine_for(url) as engine:
        if engine.dialect.name == "sqlite" and not sqlite.is_there(engine):
            return compared(None)
        with engine.connect() as connection:
            return compared(MigrationContext.configure(connection).get_current_revision())


def compared(found: str | None) -> Revision:
    """Return how the revision ``found`` compares."""
    *older, newest = _known()
    ages = {None: Age.MISSING, newest: Age.CURRENT} | dict.fromkeys(older, Age.OLD)
    return Revision(ages.get(found, Age.FUTURE), found, newest)


def is_old(found: str | None) -> bool:
    """Tell whether ``found`` is none or an older revision."""
    return compared(found).age in {Age.MISSING, Age.OLD}


@cache
def _known() -> list[str]:
    """Return all revisions in their order, as the names of their files have them."""
    return sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("0*.py"))


def require_known(revision: Revision) -> None:
    """Raise ``ConfigError`` if a newer version has written the registry."""
    if revision.age is Age.FUTURE:
        raise ConfigError(
            f"the registry has schema {revision.found}, and this version knows {revision.newest} "
            "at most: use the version that wrote it; to restore a backup of an older one, move the "
            f"registry away first, or set {PREFIX}DATABASE_URL to an empty database"
        )


def require_unicode(engine: Engine) -> None:
    """Raise ``ConfigError`` if a database of a server does not take all texts.

    A server has another encoding that was set up where no language was.
    """
    if engine.dialect.name != "postgresql":
        return
    with engine.connect() as connection:
        encoding = connection.scalar(text("SELECT current_setting('server_encoding')"))
    if encoding != "UTF8":
        raise ConfigError(
            f"the database of {PREFIX}DATABASE_URL has the encoding {encoding}: make it anew, with "
            "`createdb --template template0 --encoding UTF8 --locale C`"
        )
