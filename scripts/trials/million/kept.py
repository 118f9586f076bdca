"""A registry of very many keys with its token, and what it took to make them: all in a directory.

What is there is used again, so that keys can be made at one time and measured at another.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import create_engine, select

from app.config import Config
from app.registry import migrate
from app.registry.databases.database import Database
from app.registry.rows.tallies import Tallies
from app.registry.tables import keys
from scripts.throwaway import create_kek, make_token

_SETTINGS: Final = "settings.json"
_MADE: Final = "made.json"


class Kept:
    """The directory: ``settings`` are of its service; ``made`` is saved after each request.

    ``made`` has the seconds that the keys took, of the clock and of the processor, the size of the
    registry before, and the ``points`` at which services were compared.
    """

    def __init__(self, directory: Path, url: str | None) -> None:
        self._directory = directory
        if not (directory / _SETTINGS).exists():
            shutil.rmtree(directory, ignore_errors=True)  # one that was not finished
            self._save(_SETTINGS, _new(directory, url))
        self.settings: Mapping[str, str] = self._load(_SETTINGS) | _at(url)
        migrate(self.url)
        self.made: dict[str, Any] = {}
        if (directory / _MADE).exists():
            self.made = self._load(_MADE)

    @property
    def url(self) -> str:
        """The URL of the registry."""
        return Config.from_env(self.settings).registry_url

    @property
    def state_dir(self) -> Path:
        """Where the token is."""
        return Path(self.settings["JOSE_HSM_STATE_DIR"])

    def kids(self) -> list[str]:
        """Return all keys of the registry, in an order that says nothing of when they were made."""
        with create_engine(self.url).connect() as connection:
            return list(connection.scalars(select(keys.c.kid).order_by(keys.c.kid)))

    def settle(self) -> None:
        """Do what the service, and autovacuum of PostgreSQL, have done within a minute."""
        Tallies(Database(self.url, lambda _seconds: None)).merge()
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        if engine.dialect.name == "postgresql":
            with engine.connect() as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")

    def save(self) -> None:
        """Write down what has been ``made``."""
        self._save(_MADE, self.made)

    def _load(self, name: str) -> Any:
        return json.loads((self._directory / name).read_text("utf-8"))

    def _save(self, name: str, value: object) -> None:
        part = self._directory / f"{name}.part"
        part.write_text(json.dumps(value), "utf-8")
        part.rename(self._directory / name)


def _new(directory: Path, url: str | None) -> dict[str, str]:
    settings = make_token(directory) | {"JOSE_HSM_JWKS_TAGGING": "0"}
    migrate(Config.from_env(settings | _at(url)).registry_url)
    create_kek(settings | _at(url))
    return settings


def _at(url: str | None) -> dict[str, str]:
    return {"JOSE_HSM_DATABASE_URL": url} if url else {}
