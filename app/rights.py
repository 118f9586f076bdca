"""Who may do what with a key: operations, roles, and the one rule."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Self


class Right(StrEnum):
    """What can be done with a key of somebody's."""

    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    SIGN = "sign"
    SIGN_RAW = "sign_raw"
    """Sign what is no JWS, and with it forge any: granted apart from ``sign``."""
    VERIFY = "verify"
    MAC = "mac"
    UNWRAP = "unwrap"
    READ = "read"
    DESTROY = "destroy"
    MANAGE = "manage"
    """Its state, name, expiry, owner and grants."""
    TAG = "tag"
    CERTIFY = "certify"
    """Its certificate, which like its tags is the owner's alone to change."""


class Role(StrEnum):
    """What a principal may do without being asked which key."""

    ADMIN = "admin"
    CREATOR = "creator"
    AUDITOR = "auditor"


GRANTABLE: Final = tuple(
    right for right in Right if right not in {Right.MANAGE, Right.TAG, Right.CERTIFY}
)
EVERYBODY: Final = "*"

KINDS: Final = ("token", "jwt", "mtls")
"""Of principals: how somebody has said who he is."""
_LONGEST: Final = 512

_EVERY_KEY: Final[Mapping[Role, frozenset[Right]]] = MappingProxyType(
    {
        Role.ADMIN: frozenset({Right.READ, Right.DESTROY, Right.MANAGE}),
        Role.CREATOR: frozenset(),
        Role.AUDITOR: frozenset({Right.READ}),
    }
)


def is_name(text: str) -> bool:
    """Tell whether somebody can be called ``text``, without the kind.

    A blank at an edge is not seen, and U+FFFD stands for bytes that were no UTF-8, so that two
    names would be one. Names are compared code point by code point.
    """
    return text.isprintable() and text.strip() == text != "" and "\ufffd" not in text


def is_principal(principal: str) -> bool:
    """Tell whether ``principal`` is one as authentication makes them."""
    kind, _, name = principal.partition(":")
    is_known = principal == "anonymous" or (kind in KINDS and is_name(name))
    return is_known and len(principal) <= _LONGEST


class Principal(str):
    """Who is calling: a kind and a name, as ``token:ci``, and the roles held."""

    __slots__ = ("roles",)
    roles: frozenset[Role]

    def __new__(cls, name: str, roles: Iterable[Role] = ()) -> Self:
        """Return the principal ``name``."""
        self = super().__new__(cls, name)
        self.roles = frozenset(roles)
        return self

    @property
    def may_create(self) -> bool:
        """Whether it may create, import and unwrap keys."""
        return bool(self.roles & {Role.ADMIN, Role.CREATOR})

    def may_on_every_key(self, right: Right) -> bool:
        """Tell whether a role gives ``right`` on keys of others, without a grant."""
        return any(right in _EVERY_KEY[role] for role in self.roles)

    def may(self, right: Right, *, owner: str, is_granted: bool) -> bool:
        """Tell whether ``right`` is held on a key of ``owner``: the one rule."""
        return self == owner or is_granted or self.may_on_every_key(right)
