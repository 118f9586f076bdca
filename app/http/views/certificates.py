"""Certificates of keys: asked for here, given by an authority, kept for headers and JWKs."""

from http import HTTPStatus
from typing import Final

from flask.typing import ResponseReturnValue

from app.auth import principal
from app.http.endpoint import API, Audit, Endpoint, Resource
from app.http.failures import ALGORITHM, TOKEN
from app.http.request import catalogue, keyring, load
from app.observability.kinds import Kind
from app.rights import Right
from app.schemas.catalogue import DescriptionResponse
from app.schemas.certificates import CertificateRequest, CsrRequest, CsrResponse

resource: Final = Resource("certificates", "Certificates of keys (RFC 5280).", prefix=API)

_CSR: Final = CsrRequest()
_PEM: Final = CsrResponse()
_CHAIN: Final = CertificateRequest()
_DESCRIPTION: Final = DescriptionResponse()


@resource.serves(
    Endpoint(
        "POST",
        "/keys/<kid>/csr",
        body=_CSR,
        answers=(_PEM,),
        says="A request for a certificate",
        needs=(Right.SIGN,),
        kind=Kind.SIGN,
        audit=Audit.USE,
        failures=(*ALGORITHM, *TOKEN),
    )
)
def csr(kid: str) -> ResponseReturnValue:
    """Make a request for a certificate (PKCS#10, RFC 2986).

    It is signed by the key, with `alg` or with the first that the key performs.
    """
    return _PEM.dump({"csr": keyring().use.request_certificate(principal(), kid, **load(_CSR))})


@resource.serves(
    Endpoint(
        "PUT",
        "/keys/<kid>/certificate",
        body=_CHAIN,
        answers=(_DESCRIPTION,),
        says="The key as it is now",
        needs=(Right.CERTIFY,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
    )
)
def certify(kid: str) -> ResponseReturnValue:
    """Give a key its certificate, with those of its issuers.

    The first must hold the key, and each be signed by the next one. From then on they are in the
    JWK of the key, and a header has them that asks for `x5c` or `x5t#S256`. Whether an authority is
    to be trusted, and until when a certificate holds, is not looked at.
    """
    body = load(_CHAIN)
    chain = body["x5c"] if body["chain"] is None else body["chain"]
    return dict(_DESCRIPTION.dump(catalogue().certify(principal(), kid, chain)))


@resource.serves(
    Endpoint(
        "DELETE",
        "/keys/<kid>/certificate",
        status=HTTPStatus.NO_CONTENT,
        says="It has none any more",
        needs=(Right.CERTIFY,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
    )
)
def uncertify(kid: str) -> ResponseReturnValue:
    """Take a key's certificate away, whether it has one or not."""
    catalogue().uncertify(principal(), kid)
    return "", HTTPStatus.NO_CONTENT
