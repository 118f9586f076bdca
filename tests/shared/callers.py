"""Callers with API tokens, as the tests know them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.auth import api_tokens
from app.config import Config
from app.registry import Registry
from app.rights import Role
from tests.shared.api import Api

WITH_TOKENS = {"JOSE_HSM_AUTH": "token", "JOSE_HSM_AUTH_FAILURES": "100000"}


def token_for(
    environment: Mapping[str, str],
    principal: str,
    *,
    roles: Iterable[Role] = (),
    age: timedelta | None = None,
) -> str:
    """Return a new API token; one that expired ``age`` ago, if that is given."""
    with _registry(environment) as registry:
        return _token(registry, principal, roles=roles, age=age)


@contextmanager
def _registry(environment: Mapping[str, str]) -> Iterator[Registry]:
    registry = Registry(Config.from_env(environment).registry_url, host="test")
    yield registry
    registry._database.engine.dispose()


def _token(
    registry: Registry, principal: str, *, roles: Iterable[Role], age: timedelta | None = None
) -> str:
    expires_at = datetime.now(UTC) - age if age else None
    token, row = api_tokens.make(principal, roles=roles, name="test", expires_at=expires_at)
    registry.credentials.add(row)
    return token


@dataclass(frozen=True)
class Callers:
    """The service as several principals call it; ``environment`` are its settings."""

    environment: Mapping[str, str]
    url: str
    alice: Api
    bob: Api
    admin: Api
    auditor: Api
    creator: Api

    @classmethod
    def of(cls, environment: Mapping[str, str], url: str) -> "Callers":
        """Return new ones."""
        roles = {"admin": [Role.ADMIN], "auditor": [Role.AUDITOR], "creator": [Role.CREATOR]}
        with _registry(environment) as registry:
            apis = {
                name: Api.over_http(
                    url, bearer=_token(registry, f"token:{name}", roles=roles.get(name, []))
                )
                for name in ("alice", "bob", "admin", "auditor", "creator")
            }
        return cls(environment=environment, url=url, **apis)
