"""The operations of the document, as endpoints are declared."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from app.http import router
from app.http.endpoint import Endpoint
from scripts.openapi.texts import LINKS
from scripts.openapi.types import JsonSchema, one_of

_PARAMETER: Final = re.compile(r"<(?:\w+:)?(\w+)>")
_FORMS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "EncryptRequest": ("EncryptRequest", "JwkEncryptRequest", "GeneralEncryptRequest"),
        "EncryptResponse": ("EncryptResponse", "CompactEncryptResponse"),
        "DecryptRequest": ("DecryptRequest", "CompactDecryptRequest", "GeneralDecryptRequest"),
        "RewrapRequest": ("RewrapRequest", "CompactRewrapRequest", "GeneralRewrapRequest"),
        "RewrapResponse": ("RewrapResponse", "CompactRewrapResponse"),
        "UnwrapRequest": ("UnwrapRequest", "CompactUnwrapRequest", "GeneralUnwrapRequest"),
        "SignRequest": ("SignRequest", "ProtectedSignRequest", "GeneralSignRequest"),
        "MacRequest": ("MacRequest", "CompactMacRequest"),
        "MacResponse": ("MacResponse", "CompactSignResponse"),
        "SignResponse": ("SignResponse", "CompactSignResponse"),
        "VerifyRequest": (
            *("VerifyRequest", "FlattenedVerifyRequest"),
            *("CompactVerifyRequest", "DetachedVerifyRequest"),
            *("GeneralVerifyRequest", "GeneralDetachedVerifyRequest"),
        ),
    }
)
"""The serializations that one schema of ours stands for."""


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
    def links(self) -> dict[str, Any]:
        """What can be asked next, as the document has it."""
        links = LINKS.get(self.name, {})
        return {name: {"operationId": name, **link} for name, link in links.items()}


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


OPERATIONS: Final = _operations()
