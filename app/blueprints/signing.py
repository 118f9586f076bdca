"""JWS: sign, verify, and the MAC."""

from typing import Final

from flask import Blueprint
from flask.typing import ResponseReturnValue

from app.auth import principal
from app.blueprints import keyring, load
from app.schemas.messages import (
    MacRequest,
    MacResponse,
    SignRequest,
    SignResponse,
    ValidResponse,
    VerifyRequest,
)

blueprint: Final = Blueprint("signing", __name__)

_SIGN: Final = SignRequest()
_JWS: Final = SignResponse()
_VERIFY: Final = VerifyRequest()
_VALID: Final = ValidResponse()
_MAC: Final = MacRequest()
_MAC_VALUE: Final = MacResponse()


@blueprint.post("/sign")
def sign() -> ResponseReturnValue:
    """Return a detached JWS over the caller's data."""
    body = load(_SIGN)
    return dict(_JWS.dump(keyring().sign(principal(), **body)))


@blueprint.post("/verify")
def verify() -> ResponseReturnValue:
    """Tell whether a detached JWS is valid."""
    body = load(_VERIFY)
    header = body.pop("protected")
    valid = keyring().verify(principal(), header, **body)
    return dict(_VALID.dump({"kid": header.kid, "valid": valid}))


@blueprint.post("/mac")
def mac() -> ResponseReturnValue:
    """Return the MAC of the caller's data, or tell whether the given one is it."""
    body = load(_MAC)
    if body["mac"] is None:
        del body["mac"]
        return dict(
            _MAC_VALUE.dump({"kid": body["kid"], "mac": keyring().mac(principal(), **body)})
        )
    return dict(
        _VALID.dump({"kid": body["kid"], "valid": keyring().verify_mac(principal(), **body)})
    )
