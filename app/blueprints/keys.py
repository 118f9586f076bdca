"""Keys: create, import, unwrap, destroy."""

from http import HTTPStatus
from typing import Any, Final

from flask import Blueprint
from flask.typing import ResponseReturnValue

from app import exchange
from app.auth import principal
from app.blueprints import keyring, load
from app.schemas.keys import CreateKeyRequest, KeyResponse
from app.schemas.messages import UnwrapRequest

blueprint: Final = Blueprint("keys", __name__)

_CREATE: Final = CreateKeyRequest()
_UNWRAP: Final = UnwrapRequest()
_KEY: Final = KeyResponse()


@blueprint.post("/keys")
def create() -> ResponseReturnValue:
    """Generate a key, or import one if the body holds key material."""
    request = load(_CREATE)
    return _described(keyring().create(principal(), request))


@blueprint.post("/keys/unwrap")
def unwrap() -> ResponseReturnValue:
    """Keep the CEK of a JWE as a key of its own."""
    body = load(_UNWRAP)
    return _described(keyring().unwrap(principal(), body["protected"], body["encrypted_key"]))


@blueprint.delete("/keys/<kid>")
def destroy(kid: str) -> ResponseReturnValue:
    """Destroy a key, both halves of a pair."""
    keyring().destroy(principal(), kid)
    return "", HTTPStatus.NO_CONTENT


def _described(key: dict[str, Any]) -> dict[str, Any]:
    exchange.made(key["kid"])
    return dict(_KEY.dump(key))
