"""JWE: encrypt and decrypt."""

from typing import Final

from flask import Blueprint
from flask.typing import ResponseReturnValue

from app.auth import principal
from app.blueprints import keyring, load
from app.schemas.messages import (
    DecryptRequest,
    DecryptResponse,
    EncryptRequest,
    EncryptResponse,
)
from hsm import Sealed

blueprint: Final = Blueprint("encryption", __name__)

_ENCRYPT: Final = EncryptRequest()
_JWE: Final = EncryptResponse()
_DECRYPT: Final = DecryptRequest()
_PLAINTEXT: Final = DecryptResponse()


@blueprint.post("/encrypt")
def encrypt() -> ResponseReturnValue:
    """Return a flattened JWE of the caller's data."""
    body = load(_ENCRYPT)
    return dict(_JWE.dump(keyring().encrypt(principal(), **body)))


@blueprint.post("/decrypt")
def decrypt() -> ResponseReturnValue:
    """Return the plaintext of a flattened JWE."""
    body = load(_DECRYPT)
    data = keyring().decrypt(
        principal(),
        body["protected"],
        encrypted_key=body["encrypted_key"] or b"",
        sealed=Sealed(body["iv"], body["ciphertext"], body["tag"]),
        aad=body["aad"],
    )
    return dict(_PLAINTEXT.dump({"kid": body["protected"].kid, "data": data}))
