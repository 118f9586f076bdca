"""Requests that are counted together, for people, and how each of them ended."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, NamedTuple, Self


class Kind(StrEnum):
    """What an endpoint is for."""

    SIGN = "sign"
    VERIFY = "verify"
    MAC = "mac"
    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    MAKE = "make"
    MANAGE = "manage"
    OTHER = "other"
    WATCH = "watch"
    """For programs that ask all day long; like a page it is no use of the service."""
    PAGE = "page"


class Count(NamedTuple):
    """How many requests to an endpoint have got a status."""

    endpoint: str
    status: int
    number: int


class Outcomes(NamedTuple):
    """How many requests were done, refused by fault of their caller (4xx), or failed (5xx)."""

    done: int = 0
    refused: int = 0
    failed: int = 0

    @classmethod
    def of(cls, status: int, number: int) -> Self:
        """Return ``number`` requests that got ``status``."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return cls(failed=number)
        return cls(refused=number) if status >= HTTPStatus.BAD_REQUEST else cls(done=number)

    @classmethod
    def together(cls, outcomes: Iterable["Outcomes"]) -> Self:
        """Return the sum of at least one."""
        return cls(*map(sum, zip(*outcomes, strict=True)))

    def since(self, before: "Outcomes") -> "Outcomes":
        """Return what has come since ``before``; a counter that fell back began again at zero."""
        return Outcomes(
            *(now - then if now >= then else now for now, then in zip(self, before, strict=True))
        )

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


Tally = Mapping[str, Outcomes]
"""Outcomes by kind."""

KINDS: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        Kind.SIGN: "Sign",
        Kind.VERIFY: "Verify",
        Kind.MAC: "MAC",
        Kind.ENCRYPT: "Encrypt",
        Kind.DECRYPT: "Decrypt",
        Kind.MAKE: "Create, import, unwrap",
        Kind.MANAGE: "Read, change, destroy",
        Kind.OTHER: "Everything else",
    }
)
"""The kinds in the order in which they are shown, and their titles."""


def tally(counts: Iterable[Count], kinds: Mapping[str, Kind]) -> Tally:
    """Return the outcomes of each kind that has any; ``kinds`` is that of each endpoint."""
    found: defaultdict[str, Outcomes] = defaultdict(Outcomes)
    for endpoint, status, number in counts:
        kind = kinds.get(endpoint, Kind.OTHER)
        if kind in KINDS:
            found[kind] = Outcomes.together((found[kind], Outcomes.of(status, number)))
    return found
