"""The public keys that everybody may fetch to verify (RFC 7517 §5)."""

from typing import Final

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from app.http.request import catalogue
from app.jose import strict_json

blueprint: Final = Blueprint("jwks", __name__)

_MAX_AGE_SECONDS: Final = 60


@blueprint.get("/.well-known/jwks.json")
def jwks() -> ResponseReturnValue:
    """Return the published keys."""
    body = strict_json.dumps({"keys": catalogue().published()})
    response = Response(body, mimetype="application/jwk-set+json")
    response.cache_control.public = True
    response.cache_control.max_age = _MAX_AGE_SECONDS
    response.add_etag(weak=True)
    return response.make_conditional(request)
