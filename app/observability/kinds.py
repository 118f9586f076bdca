"""What requests are counted together, for people: a kind, and how each of them ended."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, NamedTuple, Self


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

OTHERS: Final = "other"
KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sign": "Sign",
        "verify": "Verify",
        "mac": "MAC",
        "encrypt": "Encrypt",
        "decrypt": "Decrypt",
        "make": "Create, import, unwrap",
        "manage": "Read, change, destroy",
        OTHERS: "Everything else",
    }
)
"""The kinds in the order in which they are shown, and their titles."""

_OF_ENDPOINT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "signing.sign": "sign",
        "signing.verify": "verify",
        "signing.mac": "mac",
        "encryption.encrypt": "encrypt",
        "encryption.decrypt": "decrypt",
        "keys.create": "make",
        "keys.unwrap": "make",
    }
)
_OF_BLUEPRINT: Final[Mapping[str, str]] = MappingProxyType({"keys": "manage", "grants": "manage"})
_WATCHING: Final = frozenset({"health", "status", "docs"})  # looking is no use of the service


def tally(counts: Iterable[Count]) -> Tally:
    """Return the outcomes of each kind that has any."""
    found: defaultdict[str, Outcomes] = defaultdict(Outcomes)
    for endpoint, status, number in counts:
        blueprint = endpoint.partition(".")[0]
        if blueprint not in _WATCHING:
            kind = _OF_ENDPOINT.get(endpoint) or _OF_BLUEPRINT.get(blueprint, OTHERS)
            found[kind] = Outcomes.together((found[kind], Outcomes.of(status, number)))
    return found
