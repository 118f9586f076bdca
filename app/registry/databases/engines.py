"""Engines of SQLAlchemy for the databases that a registry can be in."""

from typing import Final

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.registry.databases import sqlite
from app.settings import PREFIX, ConfigError

_FORM: Final = (
    f"{PREFIX}DATABASE_URL must be a SQLAlchemy URL, like postgresql+psycopg://user@host/name, "
    "with : / ? @ in a password as %3A %2F %3F %40"
)


def engine_of(url: str, *, is_maintenance: bool = False) -> Engine:
    """Return an engine that waits for nothing longer than two seconds and loses no commit.

    For ``is_maintenance``, as in a migration or a backup, a statement may take long, and a file
    that SQLite lacks is made. Raises ``ConfigError`` if ``url`` is none, or its driver is missing.
    """
    parsed = _parsed(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            return _engine_of_file(parsed, is_maintenance=is_maintenance)
        return _engine_of_server(parsed, is_maintenance=is_maintenance)
    except ArgumentError:
        raise ConfigError(_FORM) from None
    except ImportError as error:
        raise ConfigError(
            f"{PREFIX}DATABASE_URL needs a driver that is not installed ({error}): "
            "`scripts/setup requirements.lock`, or jose-hsm[postgresql], has that of PostgreSQL"
        ) from None


def _parsed(url: str) -> URL:
    """Return ``url`` in parts; no error repeats one of them, which may be of a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(_FORM) from None
    if "@" in (parsed.host or ""):
        raise ConfigError(f"{PREFIX}DATABASE_URL has @ in its host: in a password it is %40")
    return parsed


def _engine_of_file(url: URL, *, is_maintenance: bool) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": sqlite.LOCK_WAIT_SECONDS},
        hide_parameters=True,
        paramstyle="named",  # that of PostgreSQL is named too
    )
    sqlite.prepare(engine, makes_file=is_maintenance)
    return engine


def _engine_of_server(url: URL, *, is_maintenance: bool) -> Engine:
    engine = create_engine(
        url,
        isolation_level="READ COMMITTED",  # who has waited for another sees what he has written
        pool_pre_ping=True,
        pool_timeout=2,
        hide_parameters=True,
    )
    if engine.dialect.driver == "psycopg":
        from app.registry.databases import postgresql  # noqa: PLC0415  # few have its driver

        postgresql.prepare(engine, is_patient=is_maintenance)
    return engine
