"""What a request says of who it comes from, and what the ways to prove it have in common."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn, Protocol

from flask import Request

from app.config import Config
from app.rights import Principal, Role

_SCHEME: Final = "bearer "


class Refused(Exception):
    """The claim is not proven; the text is for the log and never for the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Whom a request says it comes from; ``prove`` returns the principal or raises ``Refused``."""

    principal: str
    prove: Callable[[], Principal]


class Audience(NamedTuple):
    """The endpoints that serve everybody, those that take a password, and those that take a cookie.

    The last two are for browsers: people can be asked for a password and not for a bearer token,
    and where they fill in forms a cookie says who they are.
    """

    everybody: frozenset[str]
    browsers: frozenset[str]
    forms: frozenset[str]


class Way(Protocol):
    """A way to authenticate."""

    def claim(self, request: Request) -> Claim | None:
        """Return what ``request`` claims in this way, if anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The roles that principals have by configuration."""

    everybody: frozenset[Role]
    admins: frozenset[str]
    auditors: frozenset[str]

    @classmethod
    def of(cls, config: Config) -> "Roles":
        """Return those of ``config``."""
        return cls(
            everybody=frozenset({Role.CREATOR} if config.everybody_creates else ()),
            admins=frozenset(config.admins),
            auditors=frozenset(config.auditors),
        )

    def principal(self, name: str, roles: Iterable[Role] = ()) -> Principal:
        """Return the principal ``name`` with these roles and those of the configuration."""
        configured = set(self.everybody)
        if name in self.admins:
            configured.add(Role.ADMIN)
        if name in self.auditors:
            configured.add(Role.AUDITOR)
        return Principal(name, configured.union(roles))


def roles_of(names: Iterable[object]) -> frozenset[Role]:
    """Return those of ``names`` that are roles here; others are somebody else's."""
    known = {str(role) for role in Role}
    return frozenset(Role(name) for name in names if isinstance(name, str) and name in known)


def bearer(request: Request, audience: Audience) -> str | None:
    """Return the bearer token of a request (RFC 6750 §2.1), if it has one.

    For browsers it may be the password (RFC 7617), with any user name. Nowhere else: they send a
    password again by themselves, whoever made them send the request.
    """
    value = request.headers.get("Authorization", "")
    if value.lower().startswith(_SCHEME):
        return value[len(_SCHEME) :].strip()
    return _password(request) if request.endpoint in audience.browsers else None


def _password(request: Request) -> str | None:
    try:
        given = request.authorization
    except ValueError:  # of Python's base64, for what is not ASCII
        return None
    return given.password if given and given.type == "basic" else None


def refusing(cause: str) -> Callable[[], NoReturn]:
    """Return a proof that fails."""

    def prove() -> NoReturn:
        raise Refused(cause)

    return prove
