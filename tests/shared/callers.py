"""Callers with API tokens, as the tests know them."""

from collections.abc import Iterable, Mapping
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
    config = Config.from_env(environment)
    expires_at = datetime.now(UTC) - age if age else None
    token, row = api_tokens.make(principal, roles=roles, name="test", expires_at=expires_at)
    registry = Registry(config.registry_url, host="test")
    registry.credentials.add(row)
    registry._database.engine.dispose()
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

        def caller(name: str, *roles: Role) -> Api:
            return Api.over_http(url, bearer=token_for(environment, f"token:{name}", roles=roles))

        return cls(
            environment=environment,
            url=url,
            alice=caller("alice"),
            bob=caller("bob"),
            admin=caller("admin", Role.ADMIN),
            auditor=caller("auditor", Role.AUDITOR),
            creator=caller("creator", Role.CREATOR),
        )
