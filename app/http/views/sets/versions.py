"""Versions of key sets: the next one, one that others may have, a certificate for the current."""

from typing import Final

from flask.typing import ResponseReturnValue

from app.auth import principal
from app.http.endpoint import API, Audit, Endpoint, Resource
from app.http.failures import ALGORITHM, TOKEN
from app.http.request import keyring, keysets, load
from app.keys.sets.catalogue import kid_of
from app.kid import KeySetName
from app.observability.kinds import Kind
from app.rights import Right
from app.schemas.certificates import CsrRequest, CsrResponse
from app.schemas.keysets import KeySetResponse, RevokeRequest, RotateRequest

resource: Final = Resource("versions", "Versions of key sets.", prefix=API)

_ROTATE: Final = RotateRequest()
_REVOKE: Final = RevokeRequest()
_KEYSET: Final = KeySetResponse()
_CSR: Final = CsrRequest()
_REQUEST: Final = CsrResponse()


@resource.serves(
    Endpoint(
        "POST",
        "/keysets/<keyset>/rotate",
        body=_ROTATE,
        answers=(_KEYSET,),
        says="The key set as it is now",
        needs=(Right.MANAGE,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
    )
)
def rotate(keyset: str) -> ResponseReturnValue:
    """Rotate a key set as soon as verifiers can know its next version, or at an instant.

    The service makes the next version within seconds, and makes it current when it has been
    published for `publish_ahead`.
    """
    return dict(_KEYSET.dump(keysets().rotate(principal(), keyset, load(_ROTATE)["at"])))


@resource.serves(
    Endpoint(
        "POST",
        "/keysets/<keyset>/revoke",
        body=_REVOKE,
        answers=(_KEYSET,),
        says="The key set as it is now",
        needs=(Right.MANAGE,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
        failures=TOKEN,
    )
)
def revoke(keyset: str) -> ResponseReturnValue:
    """Say, for ever, that others may have a version.

    It is `compromised`, and not published any more. If it is the current one, the next takes its
    place at once, however short it has been published; if there is none, it is made.
    """
    kid = load(_REVOKE)["kid"]
    return dict(_KEYSET.dump(keysets().revoke(principal(), keyset, kid_of(kid))))


@resource.serves(
    Endpoint(
        "POST",
        "/keysets/<keyset>/csr",
        body=_CSR,
        answers=(_REQUEST,),
        says="The request",
        needs=(Right.SIGN,),
        kind=Kind.SIGN,
        audit=Audit.USE,
        failures=(*ALGORITHM, *TOKEN),
    )
)
def csr(keyset: str) -> ResponseReturnValue:
    """Return a request for a certificate in PEM (RFC 2986), signed by the current version."""
    body = load(_CSR)
    name = KeySetName.of(keyset)
    return _REQUEST.dump({"csr": keyring().use.request_certificate(principal(), name, **body)})
