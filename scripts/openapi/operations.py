"""The operations of the document: the declarations of endpoints, and where each may lead."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

import hsm
from app.http import router
from app.http.endpoint import Endpoint
from scripts.openapi.types import JsonSchema, one_of

_PARAMETER: Final = re.compile(r"<(?:\w+:)?(\w+)>")
_FORMS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "EncryptResponse": ("EncryptResponse", "CompactEncryptResponse"),
        "DecryptRequest": ("DecryptRequest", "CompactDecryptRequest"),
        "SignResponse": ("SignResponse", "CompactSignResponse"),
        "VerifyRequest": ("VerifyRequest", "FlattenedVerifyRequest", "CompactVerifyRequest"),
    }
)
"""The serializations that one schema of ours stands for."""


class Link(NamedTuple):
    """What can be asked next, with which parameters and members of its body."""

    operation: str
    parameters: Mapping[str, str] = MappingProxyType({})
    body: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Operation:
    """A declared endpoint as the document has it."""

    name: str
    endpoint: Endpoint

    @property
    def tag(self) -> str:
        """The resource that it belongs to."""
        return self.endpoint.name.partition(".")[0]

    @property
    def method(self) -> str:
        """The method, in lower case."""
        return self.endpoint.method.lower()

    @property
    def path(self) -> str:
        """The path with parameters in braces."""
        return _PARAMETER.sub(r"{\1}", self.endpoint.path)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters of the path."""
        return tuple(_PARAMETER.findall(self.endpoint.path))

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers of its own that a request may have."""
        endpoint = self.endpoint
        return (
            *(("Idempotency-Key",) if endpoint.is_idempotent else ()),
            *(("If-None-Match",) if endpoint.is_conditional else ()),
        )

    @property
    def body(self) -> tuple[str, ...]:
        """The schemas of which one holds for the body; none if it takes no body."""
        body = self.endpoint.body
        return _forms(type(body).__name__) if body else ()

    @property
    def answers(self) -> tuple[str, ...]:
        """The schemas of which one holds for the answer; none if that is text or nothing."""
        names = (
            one if isinstance(one, str) else type(one).__name__ for one in self.endpoint.answers
        )
        return tuple(form for name in names for form in _forms(name))

    @property
    def answer(self) -> JsonSchema:
        """The schema of the answer."""
        return one_of(self.answers) if self.answers else {"type": "string"}

    @property
    def links(self) -> tuple[Link, ...]:
        """What can be asked next."""
        return LINKS.get(self.name, ())


def _forms(name: str) -> tuple[str, ...]:
    return _FORMS.get(name, (name,))


def _operations() -> Mapping[str, Operation]:
    endpoints = [endpoint for resource in router.API for endpoint in resource.endpoints]
    number = Counter(endpoint.name for endpoint in endpoints)
    found = {}
    for endpoint in endpoints:
        suffix = f"_{endpoint.method.lower()}" if number[endpoint.name] > 1 else ""
        name = endpoint.name.replace(".", "_") + suffix
        found[name] = Operation(name, endpoint)
    return MappingProxyType(found)


_OF_KEY: Final[Mapping[str, str]] = MappingProxyType({"kid": "$response.body#/kid"})
_JWE: Final = ("protected", "encrypted_key", "iv", "ciphertext", "tag")


def _members(of: str, *names: str) -> dict[str, str]:
    """Return members of a body that are those of a ``request`` or ``response``."""
    return {name: f"${of}.body#/{name}" for name in names}


LINKS: Final[Mapping[str, tuple[Link, ...]]] = MappingProxyType(
    {
        "keys_create": (
            *(
                Link(operation, _OF_KEY)
                for operation in (
                    *("keys_read", "keys_change", "keys_public_pem", "keys_tags"),
                    *("keys_change_tags_post", "keys_change_tags_delete"),
                    *("grants_grants", "grants_grant"),
                )
            ),
            Link("signing_sign", body=_members("response", "kid", "alg")),
            Link("signing_mac", body=_members("response", "kid", "alg")),
            Link(
                "encryption_encrypt",
                body={**_OF_KEY, "alg": hsm.DIRECT, "enc": "$response.body#/alg"},
            ),
            Link("keys_destroy", _OF_KEY),
        ),
        "keys_unwrap": (Link("keys_read", _OF_KEY), Link("keys_destroy", _OF_KEY)),
        "keys_page": (Link("keys_read", {"kid": "$response.body#/keys/0/kid"}),),
        "grants_grant": (
            Link(
                "grants_revoke",
                {name: f"$request.path.{name}" for name in ("kid", "grantee")},
            ),
        ),
        "encryption_encrypt": (
            Link("encryption_decrypt", body=_members("response", *_JWE)),
            Link("keys_unwrap", body=_members("response", *_JWE[:2])),
        ),
        "signing_sign": (
            Link(
                "signing_verify",
                body=_members("response", "protected", "signature") | _members("request", "data"),
            ),
        ),
        "signing_mac": (
            Link(
                "signing_mac",
                body=_members("request", "kid", "alg", "data") | _members("response", "mac"),
            ),
        ),
    }
)

OPERATIONS: Final = _operations()
