"""The public keys that everybody may fetch to verify (RFC 7517 §5)."""

from typing import Final

from flask import Response
from flask.typing import ResponseReturnValue

from app import compact_json
from app.http.endpoint import Endpoint, Resource
from app.http.failures import REGISTRY
from app.http.request import catalogue, conditional, load_query, service
from app.schemas.catalogue import JwksQuery

resource: Final = Resource("jwks", "Published public keys, for everybody.", is_public=True)

JWK_SET: Final = "application/jwk-set+json"

_QUERY: Final = JwksQuery()


@resource.serves(
    Endpoint(
        "GET",
        "/.well-known/jwks.json",
        query=_QUERY,
        answers=("JwkSet",),
        says="A JWK Set (RFC 7517 §5)",
        media_types=(JWK_SET,),
        failures=REGISTRY,
        is_conditional=True,
        is_cross_origin=True,
    )
)
def jwks() -> ResponseReturnValue:
    """Return the published keys.

    Those are pairs with the tag `jwks`, and of key sets the next version, the current one and those
    before it for a time. `owner`, `tag` and `keyset` narrow the set: whoever trusts all of it, or
    those with a tag, trusts every principal's signatures. Pages of every origin may read it. No key
    signs that has been here for less than `max-age`, but for new ones and those that take over in
    an emergency.
    """
    body = compact_json.dumps({"keys": catalogue().published(load_query(_QUERY))})
    response = Response(body, mimetype=JWK_SET)
    response.cache_control.public = True
    response.cache_control.max_age = int(service().config.jwks_max_age)
    response.access_control_allow_origin = "*"
    response.add_etag(weak=True)
    return conditional(response)
