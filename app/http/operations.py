"""The operations on messages: each is one row, whether it is asked for alone or in a batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import hsm
from app.jose import encoding
from app.keys.keyring import Keyring
from app.rights import Principal
from app.schemas.fields import Offers, RequestSchema
from app.schemas.loading import load
from app.schemas.messages import (
    COMPACT,
    JWE_PARTS,
    DecryptRequest,
    DecryptResponse,
    EncryptRequest,
    EncryptResponse,
    MacRequest,
    MacResponse,
    SignRequest,
    SignResponse,
    ValidResponse,
    VerifyRequest,
)

Body = dict[str, Any]

_JWE: Final = EncryptResponse()
_JWS: Final = SignResponse()
_PLAINTEXT: Final = DecryptResponse()
_VALID: Final = ValidResponse()
_MAC_VALUE: Final = MacResponse()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What is asked, done and answered; ``endpoint`` names it in logs and figures."""

    endpoint: str
    request: RequestSchema
    call: Callable[[Keyring, Principal, Body], Any]

    def load(self, members: dict[str, Any], offers: Offers) -> Body:
        """Return the body of a request, checked."""
        body: Body = load(self.request, members, offers)
        return body

    def perform(self, keyring: Keyring, principal: Principal, body: Body) -> dict[str, Any]:
        """Return the body of the answer."""
        answer: dict[str, Any] = self.call(keyring, principal, body)
        return answer


def kid_of(body: Body) -> str:
    """Return the kid that a loaded body names; empty if it brings its key along."""
    kid: str = body["protected"].kid if "protected" in body else body["kid"]
    return kid


def _encrypt(keyring: Keyring, principal: Principal, body: Body) -> Any:
    """Return a JWE of the caller's data."""
    serialization = body.pop("serialization")
    jwe = keyring.encrypt(principal, **body)
    if serialization == COMPACT:
        return {"jwe": encoding.compact(*(jwe[name] for name in JWE_PARTS))}
    return _JWE.dump(jwe)


def _decrypt(keyring: Keyring, principal: Principal, body: Body) -> Any:
    """Return the plaintext of a JWE."""
    header = body["protected"]
    data = keyring.decrypt(
        principal,
        header,
        encrypted_key=body["encrypted_key"] or b"",
        sealed=hsm.Sealed(body["iv"], body["ciphertext"], body["tag"]),
        aad=body["aad"],
    )
    return _PLAINTEXT.dump({"kid": header.kid, "data": data})


def _sign(keyring: Keyring, principal: Principal, body: Body) -> Any:
    """Return a JWS over the caller's data."""
    serialization = body.pop("serialization")
    jws = keyring.sign(principal, **body)
    if serialization == COMPACT:
        return {"jws": encoding.compact(jws["protected"], body["data"], jws["signature"])}
    return _JWS.dump(jws)


def _verify(keyring: Keyring, principal: Principal, body: Body) -> Any:
    """Tell whether a JWS is valid."""
    header, data, signature = body["protected"], body["data"], body["signature"]
    if (jwk := body["jwk"]) is not None:
        signing_input = encoding.signing_input(header.protected, data)
        return {"valid": hsm.is_valid(jwk.key, header.alg, signing_input, signature)}
    valid = keyring.verify(principal, header, data=data, signature=signature)
    return _VALID.dump({"kid": header.kid, "valid": valid})


def _mac(keyring: Keyring, principal: Principal, body: Body) -> Any:
    """Return the MAC of the caller's data, or tell whether the given one is it."""
    kid, mac = body["kid"], body["mac"]
    if mac is not None:
        return _VALID.dump({"kid": kid, "valid": keyring.verify_mac(principal, **body)})
    del body["mac"]
    return _MAC_VALUE.dump({"kid": kid, "mac": keyring.mac(principal, **body)})


def _operation(endpoint: str, request: RequestSchema, call: Any) -> Operation:
    return Operation(endpoint=endpoint, request=request, call=call)


OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        "encrypt": _operation("encryption.encrypt", EncryptRequest(), _encrypt),
        "decrypt": _operation("encryption.decrypt", DecryptRequest(), _decrypt),
        "sign": _operation("signing.sign", SignRequest(), _sign),
        "verify": _operation("signing.verify", VerifyRequest(), _verify),
        "mac": _operation("signing.mac", MacRequest(), _mac),
    }
)
